//! What the operating system means by its errors.

use std::io;

/// Tells whether the operating system refused for lack of something that others may give back.
pub(crate) fn is_passing(error: &io::Error) -> bool {
    let kind = matches!(
        error.kind(),
        io::ErrorKind::WouldBlock
            | io::ErrorKind::Interrupted
            | io::ErrorKind::OutOfMemory
            | io::ErrorKind::ResourceBusy
    );
    kind || is_out_of_descriptors(error)
}

/// Tells of too many open files, in the process or in the system: the standard library has no kind for it.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Tells whether a directory above the data cannot be synchronised by us, or by anybody.
pub(crate) fn is_none_of_ours(error: &io::Error) -> bool {
    use io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::InvalidInput
            | ErrorKind::Unsupported
    )
}

/// Tells of pages whose touch would be a signal: the disk cannot give them, or there is no file under them any more.
#[cfg(target_os = "linux")]
pub(crate) fn is_of_untouchable_pages(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EFAULT | libc::EHWPOISON))
}
