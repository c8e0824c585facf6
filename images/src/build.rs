// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Builds an image: all of its files, or none.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use dtoolkit::model::DeviceTree;

use crate::board::Region;
use crate::emit::host_dt::{DomainFiles, Files, host_dt};
use crate::emit::qemu::{dump_device_tree, qemu};
use crate::emit::ramdisk::{BACKEND, Ramdisk, SHIM, SHIM_CONFIG, inittab};
use crate::emit::{accounts, driver_dt::driver_dt, guest_dt::guest_dt, policy, shim::shim};
use crate::load::Loaded;
use crate::manifest::Domain;
use crate::modules::Modules;
use crate::plan::Plan;

/// Files that every image needs, below the directory of input files.
const XEN: &str = "xen";
const BUSYBOX: &str = "busybox";
const SHIM_BINARY: &str = "bin/xen-frontend-shim";
const BACKEND_BINARY: &str = "bin/backend";

/// A file by which a directory is recognised as an image that may be replaced.
const MARK: &str = "shim.toml";

/// What an image is built from, and where to.
#[derive(Debug)]
pub struct Job<'a> {
    /// The manifest and its board.
    pub loaded: &'a Loaded,
    /// What to build.
    pub plan: &'a Plan<'a>,
    /// The directory of input files.
    pub files: PathBuf,
    /// The directory that is made.
    pub output: PathBuf,
    /// The board's device tree, if QEMU shall not be asked for it.
    pub host_dtb: Option<PathBuf>,
}

impl Job<'_> {
    /// Builds the image beside the output directory, then puts it in its place.
    ///
    /// # Errors
    ///
    /// An input is missing, a tool failed, or the output directory is something else than an image.
    pub fn run(&self) -> anyhow::Result<()> {
        self.require_inputs()?;
        let may_replace = !self.output.exists() || self.output.join(MARK).is_file();
        ensure!(may_replace, "{} exists and is no image: name another directory", self.output.display());
        let parent = self.output.parent().context("the output directory cannot be the root")?;
        std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        let fresh = tempfile::Builder::new().prefix(".image-").tempdir_in(parent)?;
        self.build(fresh.path(), self.host()?)?;
        self.put_in_place(fresh, parent)
    }

    fn require_inputs(&self) -> anyhow::Result<()> {
        let own = [XEN, BUSYBOX, SHIM_BINARY, BACKEND_BINARY];
        let kernels = std::iter::once(&self.plan.manifest.driver_domain.domain.kernel)
            .chain(self.plan.guests.iter().map(|guest| &guest.guest.domain.kernel))
            .map(|kernel| kernel.value.as_str());
        let mut missing: Vec<_> = own
            .into_iter()
            .chain(policy::FROM_XEN)
            .chain(kernels)
            .filter(|name| !self.files.join(name).is_file())
            .collect();
        missing.dedup();
        if missing.is_empty() {
            return Ok(());
        }
        bail!("{} lacks what every image needs: {}", self.files.display(), missing.join(", "))
    }

    /// The board's own device tree, which has what the board file says of it.
    fn host(&self) -> anyhow::Result<DeviceTree> {
        let dtb = match &self.host_dtb {
            Some(path) => std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?,
            None => dump_device_tree(self.plan.board)?,
        };
        self.loaded.host(self.plan, &dtb)
    }

    fn build(&self, directory: &Path, host: DeviceTree) -> anyhow::Result<()> {
        let plan = self.plan;
        let shim = toml::to_string(&shim(plan))?;
        let write = |name: &str, content: &[u8]| {
            let path = directory.join(name);
            std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
        };
        let ramdisk = self.driver_ramdisk(&shim)?.into_bytes()?;
        self.loaded.require_room(&self.files, ramdisk.len() as u64)?;
        write("driver-domain.cpio.gz", &ramdisk)?;
        write("shim.toml", shim.as_bytes())?;
        write("driver-domain.dtb", &driver_dt(plan)?.to_dtb())?;
        for guest in &plan.guests {
            write(&format!("{}.dtb", guest.guest.name.value), &guest_dt(guest)?.to_dtb())?;
        }
        policy::compile(plan, &self.files, &directory.join("xenpolicy"))?;

        let mut modules = Modules::new(plan.board);
        let places = self.place(&mut modules, directory)?;
        write("host.dtb", &host_dt(plan, host, &places)?.to_dtb())?;
        let (xen, host_dtb) = (self.files.join(XEN), self.output.join("host.dtb"));
        if let Some(command) = qemu(plan, &xen, &host_dtb, modules.all()) {
            write("qemu.json", format!("{}\n", serde_json::to_string_pretty(&command)?).as_bytes())?;
        }
        Ok(())
    }

    fn driver_ramdisk(&self, shim: &str) -> anyhow::Result<Ramdisk> {
        let driver_domain = &self.plan.manifest.driver_domain;
        let mut ramdisk = Ramdisk::new(self.read(BUSYBOX)?);
        ramdisk.link("/init", "bin/busybox");
        let console: Vec<_> = driver_domain.console.iter().map(|word| word.value.as_str()).collect();
        ramdisk.file("/etc/inittab", inittab(&console));
        ramdisk.file(accounts::PASSWD, accounts::passwd(self.plan));
        ramdisk.file(accounts::GROUP, accounts::group(self.plan));
        ramdisk.file(SHIM_CONFIG, shim);
        ramdisk.program(SHIM, self.read(SHIM_BINARY)?);
        ramdisk.program(BACKEND, self.read(BACKEND_BINARY)?);
        for file in &driver_domain.files {
            ramdisk.program(&file.destination.value, self.read(&file.source.value)?);
        }
        Ok(ramdisk)
    }

    fn read(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        let path = self.files.join(name);
        std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Gives every file its place in memory. What was made is in `directory` now, and in the output directory when it
    /// is loaded.
    fn place(&self, modules: &mut Modules, directory: &Path) -> anyhow::Result<Files> {
        let made = |modules: &mut Modules, name: &str| -> anyhow::Result<Region> {
            let size = std::fs::metadata(directory.join(name))?.len();
            modules.place(&self.output.join(name), size)
        };
        let domain = |modules: &mut Modules, domain: &Domain, name: &str| -> anyhow::Result<DomainFiles> {
            Ok(DomainFiles {
                kernel: modules.place_file(&self.files.join(&domain.kernel.value))?,
                ramdisk: None,
                device_tree: made(modules, &format!("{name}.dtb"))?,
            })
        };
        let mut driver_domain = domain(modules, &self.plan.manifest.driver_domain.domain, "driver-domain")?;
        let mut guests = Vec::new();
        for guest in &self.plan.guests {
            let mut files = domain(modules, &guest.guest.domain, &guest.guest.name.value)?;
            if let Some(ramdisk) = &guest.guest.ramdisk {
                files.ramdisk = Some(modules.place_file(&self.files.join(&ramdisk.value))?);
            }
            guests.push(files);
        }
        driver_domain.ramdisk = Some(made(modules, "driver-domain.cpio.gz")?);
        Ok(Files { policy: made(modules, "xenpolicy")?, driver_domain, guests })
    }

    /// Puts the finished directory where the output shall be.
    fn put_in_place(&self, fresh: tempfile::TempDir, parent: &Path) -> anyhow::Result<()> {
        // The old image, if there is one, goes when this goes out of scope.
        let old = tempfile::Builder::new().prefix(".old-image-").tempdir_in(parent)?;
        if self.output.exists() {
            std::fs::rename(&self.output, old.path().join("image"))?;
        }
        // A temporary directory is for its owner only; an image is for whoever may read its parent.
        let shared = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(fresh.path(), shared)?;
        let fresh = fresh.keep();
        std::fs::rename(&fresh, &self.output)
            .with_context(|| format!("cannot put {} in place", self.output.display()))
    }
}
