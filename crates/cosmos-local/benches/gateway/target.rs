//! An endpoint that is measured.

use std::time::Duration;

use crate::{Outcome, http::Account};

/// An account, and the process that serves it, if that is known.
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) account: Account,
    process: Option<u32>,
}

impl Target {
    pub(crate) fn new(name: &str, account: Account, process: Option<u32>) -> Self {
        Self {
            name: name.to_owned(),
            account,
            process,
        }
    }

    /// Reads `NAME=URL` or `NAME=URL,PID`.
    pub(crate) fn parse(text: &str, key: &str) -> Outcome<Self> {
        let (name, place) = text
            .split_once('=')
            .ok_or_else(|| format!("{text:?} is not NAME=URL or NAME=URL,PID"))?;
        let (url, process) = match place.split_once(',') {
            Some((url, process)) => (url, Some(process.parse()?)),
            None => (place, None),
        };
        Ok(Self::new(name, Account::new(url, key)?, process))
    }

    /// Processor time that its process has taken since it was started (Linux); `None` when the process is not known.
    pub(crate) fn processor_time(&self) -> Outcome<Option<Duration>> {
        // Linux counts for programs in hundredths of a second, whatever its own clock.
        const TICK: Duration = Duration::from_millis(10);
        let Some(process) = self.process else {
            return Ok(None);
        };
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
        // The name of the program, in parentheses, may hold spaces.
        let (_, fields) = stat.rsplit_once(") ").ok_or("no fields")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let ticks: u32 = fields[11].parse::<u32>()? + fields[12].parse::<u32>()?;
        Ok(Some(TICK * ticks))
    }

    /// What its process has in memory (Linux); `None` when the process is not known.
    pub(crate) fn resident_kib(&self) -> Outcome<Option<u64>> {
        let Some(process) = self.process else {
            return Ok(None);
        };
        let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .ok_or("no VmRSS")?;
        Ok(Some(line.trim().trim_end_matches(" kB").trim().parse()?))
    }
}
