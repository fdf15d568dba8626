//! The disk seam: what the log asks of a device. Real disks and the simulated one answer the same calls.

/// A directory of log files on some device.
pub trait Disk: Send + Sync + 'static {
    /// Which implementation this is, for the log line at start.
    fn kind(&self) -> &'static str;
}
