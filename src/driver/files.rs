//! Small files that settings name: secrets, certificates and keys.
//!
//! Only regular files are read, and never more than the caller allows. What a signal's thread reads again must not be a
//! pipe that nobody writes to.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

/// The whole file, at most `bytes_max`; `None` where there is none. The error is a phrase that goes behind the file's name.
pub fn read(path: &Path, bytes_max: usize) -> Result<Option<Vec<u8>>, String> {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::PermissionDenied => {
            "this user may not read (permission denied; the file and every folder above it count)".to_owned()
        }
        _ => format!("cannot be read: {error}"),
    };
    // Opening a pipe would wait for its writer.
    let opened = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Err("is not a regular file".into());
    }
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > bytes_max {
        return Err(format!("is longer than {} KiB", bytes_max / 1024));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole_or_it_is_said_why_not() {
        let folder = std::env::temp_dir().join(format!("voice-media-bridge-files-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (file, pipe) = (folder.join("file"), folder.join("pipe"));
        std::fs::write(&file, [b'x'; 1024]).unwrap();
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read(&file, 1024).unwrap().unwrap().len(), 1024);
        assert_eq!(read(&folder.join("none"), 1024), Ok(None));
        for (path, bytes_max, said) in
            [(&file, 1023, "longer than"), (&folder, 1024, "not a regular file"), (&pipe, 1024, "not a regular file")]
        {
            let error = read(path, bytes_max).unwrap_err();
            assert!(error.contains(said), "{}: {error}", path.display());
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
