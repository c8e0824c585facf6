// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `images`: checks a manifest, and builds an appliance image from it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use images::build::Job;
use images::emit::ramdisk::Ramdisk;
use images::error::Error;
use images::explain::explain;
use images::load::{Loaded, load};

#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check a manifest, and list the devices of each guest.
    Check {
        /// The manifest.
        manifest: PathBuf,
        /// Check kernels and ramdisks, too: the directory of input files, as for `build`.
        #[arg(long, value_name = "DIR")]
        files: Option<PathBuf>,
        /// Check the board's own device tree, too.
        #[arg(long, value_name = "FILE")]
        host_dtb: Option<PathBuf>,
    },
    /// Print who reaches what: domains, memory, devices, windows, interrupts, hardware.
    Explain {
        /// The manifest.
        manifest: PathBuf,
    },
    /// Build the image: device trees, policy, the driver domain's ramdisk, the command to run it.
    Build {
        /// The manifest.
        manifest: PathBuf,
        /// The directory of input files: xen, Image, busybox, flask/, bin/, and the files in the manifest.
        #[arg(long, value_name = "DIR")]
        files: PathBuf,
        /// The directory to make, or to replace if it is an image.
        #[arg(long, value_name = "DIR")]
        output: PathBuf,
        /// The board's own device tree. By default QEMU writes it, if it emulates the board.
        #[arg(long, value_name = "FILE")]
        host_dtb: Option<PathBuf>,
    },
    /// Make a ramdisk with busybox, an init and more files.
    Ramdisk {
        /// busybox, for the architecture that boots the ramdisk.
        #[arg(long, value_name = "FILE")]
        busybox: PathBuf,
        /// The first program, which becomes /init.
        #[arg(long, value_name = "FILE")]
        init: PathBuf,
        /// An executable file to add, with its path in the ramdisk.
        #[arg(long = "file", value_name = "DEST=SRC", value_parser = extra_file)]
        files: Vec<(String, PathBuf)>,
        /// The ramdisk to write.
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
    },
}

fn extra_file(argument: &str) -> Result<(String, PathBuf), String> {
    match argument.split_once('=') {
        Some((destination, source)) if destination.starts_with('/') && !source.is_empty() => {
            Ok((destination.to_owned(), source.into()))
        }
        _ => Err("write /path/in/the/ramdisk=FILE".to_owned()),
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Check { manifest, files, host_dtb } => {
            check(&manifest, files.as_deref(), host_dtb.as_deref())
        }
        Command::Build { manifest, files, output, host_dtb } => {
            let loaded = load_aloud(&manifest)?;
            loaded.require_files(&files)?;
            let plan = loaded.plan()?;
            // qemu.json is used from another directory.
            let (files, output) = (std::path::absolute(files)?, std::path::absolute(output)?);
            Ok(Job { loaded: &loaded, plan: &plan, files, output, host_dtb }.run()?)
        }
        Command::Explain { manifest } => {
            let loaded = load(&manifest)?;
            print!("{}", explain(&loaded.plan()?));
            Ok(())
        }
        Command::Ramdisk { busybox, init, files, output } => ramdisk(&busybox, &init, &files, &output),
    }
}

/// Reads a manifest, and prints its warnings.
fn load_aloud(path: &Path) -> Result<Loaded, Error> {
    let loaded = load(path)?;
    if let Some(warnings) = loaded.warnings() {
        eprintln!("{warnings}");
    }
    Ok(loaded)
}

fn check(path: &Path, files: Option<&Path>, host_dtb: Option<&Path>) -> anyhow::Result<()> {
    let loaded = load_aloud(path)?;
    if let Some(files) = files {
        loaded.require_files(files)?;
    }
    let plan = loaded.plan()?;
    if let Some(path) = host_dtb {
        loaded.host(&plan, &read(path)?)?;
    }
    for guest in &plan.guests {
        println!("{} (domain {})", guest.guest.name.value, guest.domid);
        for device in &guest.devices {
            let shim_config::Device { name, base, irq, .. } = &device.configuration;
            println!("  {name:<12} {base:#x}  interrupt {irq}  {}", device.device.device_type.summary());
        }
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn ramdisk(busybox: &Path, init: &Path, files: &[(String, PathBuf)], output: &Path) -> anyhow::Result<()> {
    let mut ramdisk = Ramdisk::new(read(busybox)?);
    ramdisk.program("/init", read(init)?);
    for (destination, source) in files {
        ramdisk.program(destination, read(source)?);
    }
    std::fs::write(output, ramdisk.into_bytes()?)
        .with_context(|| format!("cannot write {}", output.display()))
}
