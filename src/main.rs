//! geo-events: the command line, to come. It says so instead of doing nothing.

fn main() -> std::process::ExitCode {
    eprintln!("geo-events has no commands yet; see README.md for the parts that work");
    std::process::ExitCode::FAILURE
}
