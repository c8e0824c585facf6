// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The options of `backend console`.

use anyhow::Context;
use clap::Args;
use confinement::role::backend::Hardware;

use super::device::Console;
use super::source::SourceName;
use super::unix::Word;
use crate::arguments::DeviceArguments;
use crate::device::Device;

/// The arguments of `backend console`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// What the guest reads: kmsg (the log of this kernel), file:PATH (a file that grows), or unix:PATH (a
    /// socket of type SOCK_SEQPACKET that answers requests)
    #[arg(long, value_name = "SOURCE", group = "hardware")]
    source: Option<SourceName>,
    /// A word that the guest may send to a source unix:PATH, such as json
    #[arg(long = "request", value_name = "WORD", requires = "source")]
    requests: Vec<Word>,
}

impl DeviceArguments for Arguments {
    const KIND: &'static str = "console";
    const HARDWARE: Hardware = Hardware::None;

    fn open(&self) -> anyhow::Result<Box<dyn Device>> {
        let source = self.source.as_ref().context("name a source with --source")?;
        Ok(Box::new(Console::new(source.open(&self.requests)?)))
    }

    #[cfg(feature = "sim")]
    fn simulate(&self, _simulation: crate::sim::Simulation) -> anyhow::Result<Box<dyn Device>> {
        anyhow::bail!("a console has no hardware to simulate: write --source in place of --sim")
    }
}
