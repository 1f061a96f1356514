//! The executable `geo-events`: parses the command line, does what it says, and turns the outcome into an exit code.

mod cli;
mod stop;

use std::process::ExitCode;

use clap::Parser as _;

use self::cli::{Cli, Outcome};

#[expect(
    clippy::print_stderr,
    reason = "the last word of a program that failed"
)]
fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Stopped(reason)) => ExitCode::from(reason.exit_code()),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
