// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Builds an image: all files, or none.

use std::path::{Path, PathBuf};

use dtoolkit::model::DeviceTree;

use crate::board::Region;
use crate::emit::host_dt::{DomainFiles, Files, host_dt};
use crate::emit::qemu::{dump_device_tree, qemu};
use crate::emit::ramdisk::{BACKEND, Ramdisk, SHIM, SHIM_CONFIG, inittab};
use crate::emit::{accounts, driver_dt::driver_dt, guest_dt::guest_dt, policy, shim::shim};
use crate::error::{Error, read};
use crate::load::Loaded;
use crate::manifest::Domain;
use crate::modules::Modules;
use crate::plan::Plan;

/// Files that every image needs, below the directory of input files.
const XEN: &str = "xen";
const BUSYBOX: &str = "busybox";
const SHIM_BINARY: &str = "bin/xen-frontend-shim";
const BACKEND_BINARY: &str = "bin/backend";

/// The file that marks a directory as an image, which may be replaced.
const MARK: &str = "shim.toml";

/// The inputs and the output of a build.
#[derive(Debug)]
pub struct Job<'a> {
    /// The manifest and its board.
    pub loaded: &'a Loaded,
    /// The plan of the manifest.
    pub plan: &'a Plan<'a>,
    /// The directory of input files.
    pub files: PathBuf,
    /// The directory to make, or to replace if it is an image.
    pub output: PathBuf,
    /// The board's device tree. Without it, QEMU writes one.
    pub host_dtb: Option<PathBuf>,
}

impl Job<'_> {
    /// Builds the image beside the output directory, then moves it there.
    ///
    /// # Errors
    ///
    /// An input is missing or refused, a program failed, or the output directory is not an image.
    pub fn run(&self) -> Result<(), Error> {
        self.require_inputs()?;
        let not_an_image = || Error::NotAnImage(self.output.clone());
        if self.output.exists() && !self.output.join(MARK).is_file() {
            return Err(not_an_image());
        }
        let parent = self.output.parent().ok_or_else(not_an_image)?;
        std::fs::create_dir_all(parent).map_err(|error| Error::Write(parent.to_owned(), error))?;
        let fresh = tempfile::Builder::new().prefix(".image-").tempdir_in(parent)?;
        self.build(fresh.path(), self.host()?)?;
        self.move_into_place(fresh, parent)
    }

    fn require_inputs(&self) -> Result<(), Error> {
        let own = [XEN, BUSYBOX, SHIM_BINARY, BACKEND_BINARY];
        let kernels = self.plan.manifest.domains().map(|domain| domain.kernel.value.as_str());
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
        Err(Error::Missing { directory: self.files.clone(), names: missing.join(", ") })
    }

    /// The board's own device tree, which agrees with the board file.
    fn host(&self) -> Result<DeviceTree, Error> {
        let dtb = match &self.host_dtb {
            Some(path) => read(path)?,
            None => dump_device_tree(self.plan.board)?,
        };
        self.loaded.host(self.plan, &dtb)
    }

    fn build(&self, directory: &Path, host: DeviceTree) -> Result<(), Error> {
        let plan = self.plan;
        let shim = toml::to_string(&shim(plan))?;
        let write = |name: &str, content: &[u8]| {
            let path = directory.join(name);
            std::fs::write(&path, content).map_err(|error| Error::Write(path, error))
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

    fn driver_ramdisk(&self, shim: &str) -> Result<Ramdisk, Error> {
        let driver_domain = &self.plan.manifest.driver_domain;
        let mut ramdisk = Ramdisk::new(self.input(BUSYBOX)?);
        ramdisk.link("/init", "bin/busybox");
        let console: Vec<_> = driver_domain.console.iter().map(|word| word.value.as_str()).collect();
        ramdisk.file("/etc/inittab", inittab(&console));
        ramdisk.file(accounts::PASSWD, accounts::passwd(self.plan));
        ramdisk.file(accounts::GROUP, accounts::group(self.plan));
        ramdisk.file(SHIM_CONFIG, shim);
        ramdisk.program(SHIM, self.input(SHIM_BINARY)?);
        ramdisk.program(BACKEND, self.input(BACKEND_BINARY)?);
        for file in self.plan.manifest.files() {
            ramdisk.program(&file.destination.value, self.input(&file.source.value)?);
        }
        Ok(ramdisk)
    }

    fn input(&self, name: &str) -> Result<Vec<u8>, Error> {
        read(&self.files.join(name))
    }

    /// Gives every file a place in memory. Files that were made are in `directory` now, and in the output
    /// directory when they are loaded.
    fn place(&self, modules: &mut Modules, directory: &Path) -> Result<Files, Error> {
        let made = |modules: &mut Modules, name: &str| -> Result<Region, Error> {
            let size = std::fs::metadata(directory.join(name))?.len();
            modules.place(&self.output.join(name), size)
        };
        let domain = |modules: &mut Modules, domain: &Domain, name: &str| -> Result<DomainFiles, Error> {
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

    /// Moves the finished directory to the output.
    fn move_into_place(&self, fresh: tempfile::TempDir, parent: &Path) -> Result<(), Error> {
        // Deletes the old image at the end of the scope.
        let old = tempfile::Builder::new().prefix(".old-image-").tempdir_in(parent)?;
        if self.output.exists() {
            std::fs::rename(&self.output, old.path().join("image"))?;
        }
        // A temporary directory is readable by its owner only.
        let shared = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(fresh.path(), shared)?;
        let fresh = fresh.keep();
        std::fs::rename(&fresh, &self.output).map_err(|error| Error::Write(self.output.clone(), error))
    }
}
