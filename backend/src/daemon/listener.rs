// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Listens at a socket path.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Why a path cannot be listened at.
#[derive(Debug, thiserror::Error)]
#[error("no socket at {}: {reason}", path.display())]
pub struct BindError {
    path: PathBuf,
    reason: Reason,
}

#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error("the file is not a socket; name another path")]
    NotASocket,
    #[error("another process listens there; stop it, or name another path")]
    InUse,
    #[error(transparent)]
    Kernel(#[from] io::Error),
}

/// Binds to `path`. Replaces a socket file that no process serves, and nothing else: the operator may have
/// named the wrong file.
pub(crate) fn bind(path: &Path) -> Result<UnixListener, BindError> {
    let bound = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => replace(path),
        other => other.map_err(Reason::from),
    };
    bound.map_err(|reason| BindError { path: path.to_owned(), reason })
}

fn replace(path: &Path) -> Result<UnixListener, Reason> {
    if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(Reason::NotASocket);
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)?;
            Ok(UnixListener::bind(path)?)
        }
        Err(error) => Err(error.into()),
        Ok(_) => Err(Reason::InUse),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn bind_replaces_only_a_socket_that_no_process_serves() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let first = bind(&path).unwrap();
        let error = bind(&path).unwrap_err().to_string();
        assert!(error.contains("another process listens there"), "{error}");
        drop(first);
        assert!(path.exists());
        bind(&path).unwrap();
    }

    #[test]
    fn bind_leaves_a_file_that_is_not_a_socket() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("file"), directory.path().join("link"));
        std::fs::write(&file, "precious").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        for path in [&file, &link] {
            let error = bind(path).unwrap_err().to_string();
            assert!(error.contains("the file is not a socket; name another path"), "{error}");
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
        assert!(link.is_symlink());
        let nowhere = directory.path().join("no/socket");
        assert!(bind(&nowhere).unwrap_err().to_string().contains("no/socket: No such file"));
    }
}
