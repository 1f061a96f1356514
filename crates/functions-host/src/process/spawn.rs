//! Starting a child that cannot outlive its host.
//!
//! The child leads a process group of its own, so that a stop reaches what it started in turn. On Linux the kernel also kills
//! it when the host dies without a word (SIGKILL, crash): `PR_SET_PDEATHSIG`. That signal is bound to the *thread* that
//! started the child, not to the process; a runtime may end its threads at any time. Hence a [`Spawner`] owns one thread that
//! does nothing but start children and lives as long as the spawner.

use std::io;
use std::sync::mpsc;

use tokio::process::{Child, Command};
use tokio::sync::oneshot;

/// Starts children from one long-lived thread.
#[derive(Debug, Clone)]
pub(crate) struct Spawner {
    orders: mpsc::Sender<Order>,
}

#[derive(Debug)]
struct Order {
    command: Command,
    answer: oneshot::Sender<io::Result<Child>>,
}

impl Spawner {
    /// Starts the thread. Must be called inside a tokio runtime, which will watch the children.
    pub(crate) fn start() -> io::Result<Self> {
        let (orders, receiver) = mpsc::channel::<Order>();
        let runtime = tokio::runtime::Handle::current();
        std::thread::Builder::new()
            .name("functions-handler".into())
            .spawn(move || {
                let _inside = runtime.enter();
                // Ends when the last spawner is dropped.
                for Order { command, answer } in receiver {
                    // An answer nobody waits for drops the child, which kills it.
                    drop(answer.send(start(command)));
                }
            })?;
        Ok(Self { orders })
    }

    /// Starts one child: in its own process group, killed when dropped, and on Linux when the host ends.
    pub(crate) async fn spawn(&self, command: Command) -> io::Result<Child> {
        let gone = || io::Error::other("the thread that starts handlers has ended");
        let (answer, receiver) = oneshot::channel();
        self.orders
            .send(Order { command, answer })
            .map_err(|_| gone())?;
        receiver.await.map_err(|_| gone())?
    }
}

fn start(mut command: Command) -> io::Result<Child> {
    command.kill_on_drop(true);
    #[cfg(unix)]
    command.process_group(0);
    #[cfg(target_os = "linux")]
    die_with_host(&mut command);
    command.spawn()
}

/// Asks the kernel to kill the child when the calling thread ends.
#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "pre_exec is the only place between fork and exec, and is unsafe by signature"
)]
fn die_with_host(command: &mut Command) {
    let host = rustix::process::getpid();
    let prepare = move || {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        // The host may have died before the line above took effect.
        if rustix::process::getppid() == Some(host) {
            Ok(())
        } else {
            Err(io::ErrorKind::NotConnected.into())
        }
    };
    // SAFETY: the closure runs in the forked child, where only async-signal-safe calls are allowed. It makes two system
    // calls (prctl, getppid) through rustix, which issues them directly, allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(prepare);
    }
}

/// Asks the child's process group to end, or (`force`) ends it. A group that is gone already is fine.
pub(crate) fn signal_group(leader: u32, force: bool) {
    #[cfg(unix)]
    {
        let signal = if force {
            rustix::process::Signal::KILL
        } else {
            rustix::process::Signal::TERM
        };
        let Some(group) = i32::try_from(leader)
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        else {
            return;
        };
        match rustix::process::kill_process_group(group, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => {
                tracing::warn!(pid = leader, %error, "cannot signal the handler's process group")
            }
        }
    }
    #[cfg(not(unix))]
    {
        // Without process groups the caller's kill of the child itself has to do.
        let _ = (leader, force);
    }
}
