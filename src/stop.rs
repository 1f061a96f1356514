//! Why and when the handler stops.
//!
//! It never ends by itself, and never with exit code 0: to a Functions host that would mean "do not start me again",
//! and every later invocation would fail (`Azure/azure-functions-host:
//! src/WebJobs.Script/Workers/Http/HttpFunctionInvocationDispatcher.cs`). A host that stops its handler on purpose does
//! not look at the code.

use std::fmt;

/// What asked the handler to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Ctrl-C in the terminal, which all processes in it receive.
    Interrupt,
    /// SIGTERM.
    #[cfg_attr(not(unix), expect(dead_code, reason = "a signal of Unix"))]
    Terminate,
    /// The host that started this process is gone.
    #[cfg_attr(not(unix), expect(dead_code, reason = "only noticed on Unix"))]
    Orphaned,
}

impl Reason {
    /// The exit code: as a shell reports the signal, never 0.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
            Self::Orphaned => 1,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "Ctrl-C",
            Self::Terminate => "SIGTERM",
            Self::Orphaned => "the Functions host is gone",
        })
    }
}

#[cfg(unix)]
mod platform {
    use std::{io, os::unix::process::parent_id, time::Duration};

    use tokio::signal::unix::{Signal, SignalKind, signal};

    use super::Reason;

    /// How often the parent is looked at.
    const PARENT_POLL: Duration = Duration::from_millis(500);

    /// Listens for everything that asks this process to stop.
    pub(crate) struct Stop {
        interrupt: Signal,
        terminate: Signal,
        parent: Option<u32>,
    }

    impl Stop {
        /// Begins to listen. With `under_host` the end of the parent process counts too: a host that is killed cannot
        /// stop its handler, and a handler that stays would hold its memory, and perhaps the port of the next one.
        pub(crate) fn listen(under_host: bool) -> io::Result<Self> {
            Ok(Self {
                interrupt: signal(SignalKind::interrupt())?,
                terminate: signal(SignalKind::terminate())?,
                parent: under_host.then(parent_id),
            })
        }

        /// Resolves when one of them asks.
        pub(crate) async fn requested(&mut self) -> Reason {
            let parent = self.parent;
            tokio::select! {
                _ = self.interrupt.recv() => Reason::Interrupt,
                _ = self.terminate.recv() => Reason::Terminate,
                () = gone(parent) => Reason::Orphaned,
            }
        }
    }

    /// Resolves when this process has another parent than it had.
    async fn gone(parent: Option<u32>) {
        let Some(parent) = parent else {
            return std::future::pending().await;
        };
        while parent_id() == parent {
            tokio::time::sleep(PARENT_POLL).await;
        }
    }
}

#[cfg(not(unix))]
mod platform {
    use std::io;

    use super::Reason;

    /// Listens for Ctrl-C.
    pub(crate) struct Stop(());

    impl Stop {
        pub(crate) fn listen(_under_host: bool) -> io::Result<Self> {
            Ok(Self(()))
        }

        pub(crate) async fn requested(&mut self) -> Reason {
            match tokio::signal::ctrl_c().await {
                Ok(()) => Reason::Interrupt,
                Err(error) => {
                    tracing::warn!(%error, "cannot listen for Ctrl-C");
                    std::future::pending().await
                }
            }
        }
    }
}

pub(crate) use platform::Stop;
