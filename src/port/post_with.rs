//! The verbs that give ports away with a message.

use std::time::Duration;

use bytemuck::NoUninit;

use crate::tag::{Tagged, plain_data_tag};

use super::MessagePort;
use super::headed::Heading;
use super::post::{Patience, Sender, UNTAGGED};
use super::transfer_list::{TransferError, TransferList};

#[cfg(feature = "rkyv")]
impl Sender {
    /// Posts a value and gives ports away with it. See
    /// [`MessagePort::post_with`](crate::MessagePort::post_with).
    pub fn post_with<T: crate::Postable>(
        &self,
        value: &T,
        list: impl Into<TransferList>,
    ) -> Result<(), TransferError> {
        self.post_value_with(value, Patience::FOR_EVER, list.into())
    }

    /// As [`post_with`](Self::post_with), without waiting.
    pub fn try_post_with<T: crate::Postable>(
        &self,
        value: &T,
        list: impl Into<TransferList>,
    ) -> Result<(), TransferError> {
        self.post_value_with(value, Patience::None, list.into())
    }

    /// As [`post_with`](Self::post_with), waiting at most so long.
    pub fn post_with_timeout<T: crate::Postable>(
        &self,
        value: &T,
        list: impl Into<TransferList>,
        timeout: Duration,
    ) -> Result<(), TransferError> {
        self.post_value_with(value, Patience::at_most(timeout), list.into())
    }
}

impl Sender {
    /// Posts bytes and gives ports away with them. See
    /// [`MessagePort::post_bytes_with`](crate::MessagePort::post_bytes_with).
    pub fn post_bytes_with(
        &self,
        bytes: &[u8],
        list: impl Into<TransferList>,
    ) -> Result<(), TransferError> {
        self.post_headed(Heading::none(UNTAGGED), bytes, Patience::FOR_EVER, list.into())
    }

    /// As [`post_bytes_with`](Self::post_bytes_with), without waiting.
    pub fn try_post_bytes_with(
        &self,
        bytes: &[u8],
        list: impl Into<TransferList>,
    ) -> Result<(), TransferError> {
        self.post_headed(Heading::none(UNTAGGED), bytes, Patience::None, list.into())
    }

    /// As [`post_bytes_with`](Self::post_bytes_with), waiting at most so long.
    pub fn post_bytes_with_timeout(
        &self,
        bytes: &[u8],
        list: impl Into<TransferList>,
        timeout: Duration,
    ) -> Result<(), TransferError> {
        self.post_headed(Heading::none(UNTAGGED), bytes, Patience::at_most(timeout), list.into())
    }

    /// Posts plain data and gives ports away with it. See
    /// [`MessagePort::post_pod_with`](crate::MessagePort::post_pod_with).
    pub fn post_pod_with<T: Tagged + NoUninit>(
        &self,
        value: &T,
        list: impl Into<TransferList>,
    ) -> Result<(), TransferError> {
        self.post_tagged_with(value, Patience::FOR_EVER, list.into())
    }

    /// As [`post_pod_with`](Self::post_pod_with), without waiting.
    pub fn try_post_pod_with<T: Tagged + NoUninit>(
        &self,
        value: &T,
        list: impl Into<TransferList>,
    ) -> Result<(), TransferError> {
        self.post_tagged_with(value, Patience::None, list.into())
    }

    /// As [`post_pod_with`](Self::post_pod_with), waiting at most so long.
    pub fn post_pod_with_timeout<T: Tagged + NoUninit>(
        &self,
        value: &T,
        list: impl Into<TransferList>,
        timeout: Duration,
    ) -> Result<(), TransferError> {
        self.post_tagged_with(value, Patience::at_most(timeout), list.into())
    }

    fn post_tagged_with<T: Tagged + NoUninit>(
        &self,
        value: &T,
        patience: Patience,
        list: TransferList,
    ) -> Result<(), TransferError> {
        let heading = Heading::none(plain_data_tag::<T>());
        self.post_headed(heading, bytemuck::bytes_of(value), patience, list)
    }
}

/// Posts that give ports and [buffers](crate::Buffer) away.
///
/// All or nothing: a post that is refused has changed nothing, and the error hands the whole list
/// back. A port can be given away at any time: with messages waiting in it, while its other end posts,
/// after its other end was closed (it arrives with its messages, and then the end). Its other end
/// notices nothing. It does not arrive with its wait strategy, and its [`Closer`](crate::Closer)s stay
/// behind without effect.
///
/// What was given away cannot be used, given away again, or be its own carrier; the compiler sees to it:
///
/// ```compile_fail,E0382
/// # use zeroport::{MessageChannel, transfer};
/// # let MessageChannel { port1, port2 } = MessageChannel::new()?;
/// # let MessageChannel { port1: port3, port2: port4 } = MessageChannel::new()?;
/// port1.post_bytes_with(b"", transfer![port3])?;
/// port3.post_bytes(b"whose?")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// ```compile_fail,E0382
/// # use zeroport::{MessageChannel, transfer};
/// # let MessageChannel { port1, port2 } = MessageChannel::new()?;
/// # let MessageChannel { port1: port3, port2: port4 } = MessageChannel::new()?;
/// port1.post_bytes_with(b"", transfer![port3, port3])?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// ```compile_fail,E0505
/// # use zeroport::{MessageChannel, transfer};
/// # let MessageChannel { port1, port2 } = MessageChannel::new()?;
/// port1.post_bytes_with(b"", transfer![port1])?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// ```compile_fail,E0382
/// # use zeroport::{Buffer, MessageChannel, transfer};
/// # let MessageChannel { port1, port2 } = MessageChannel::new()?;
/// # let mut buffer = Buffer::new(1)?;
/// port1.post_bytes_with(b"", transfer![buffer])?;
/// buffer[0] = 1;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Two ports that lie unread in each other's queues keep each other alive, though nobody can reach
/// them; the kernel finds such cycles, but only when some Unix socket is next closed.
impl MessagePort {
    /// Posts a value and gives ports and buffers away with it. It is serialised to private memory first.
    ///
    /// ```
    /// use zeroport::{MessageChannel, transfer};
    ///
    /// let MessageChannel { port1, port2 } = MessageChannel::new()?;
    /// let MessageChannel { port1: reply, port2: theirs } = MessageChannel::new()?;
    /// port1.post_with(&"how are you?".to_string(), transfer![theirs])?;
    ///
    /// let message = port2.recv()?;
    /// let [theirs] = message.take_ports()?;
    /// theirs.post(&"fine".to_string())?;
    /// assert_eq!(reply.recv()?.get::<String>()?, "fine");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`TransferError`] with the list and a [`PostError`](crate::PostError): those of
    /// [`post`](Self::post), and [`Untransferable`](crate::PostError::Untransferable),
    /// [`TooManyPorts`](crate::PostError::TooManyPorts) (more than 1024),
    /// [`Os`](crate::PostError::Os).
    #[cfg(feature = "rkyv")]
    pub fn post_with<T: crate::Postable>(
        &self,
        value: &T,
        list: impl Into<TransferList>,
    ) -> Result<(), TransferError> {
        self.halves().0.post_with(value, list)
    }

    /// As [`post_with`](Self::post_with), without waiting.
    ///
    /// # Errors
    ///
    /// As [`post_with`](Self::post_with), and [`Full`](crate::PostError::Full).
    #[cfg(feature = "rkyv")]
    pub fn try_post_with<T: crate::Postable>(
        &self,
        value: &T,
        list: impl Into<TransferList>,
    ) -> Result<(), TransferError> {
        self.halves().0.try_post_with(value, list)
    }

    /// As [`post_with`](Self::post_with), waiting for room at most so long.
    ///
    /// # Errors
    ///
    /// As [`post_with`](Self::post_with), and [`Full`](crate::PostError::Full), not before the time is
    /// up.
    #[cfg(feature = "rkyv")]
    pub fn post_with_timeout<T: crate::Postable>(
        &self,
        value: &T,
        list: impl Into<TransferList>,
        timeout: Duration,
    ) -> Result<(), TransferError> {
        self.halves().0.post_with_timeout(value, list, timeout)
    }

    /// Posts bytes and gives ports and buffers away with them.
    ///
    /// ```
    /// use zeroport::{MessageChannel, transfer};
    ///
    /// let MessageChannel { port1, port2 } = MessageChannel::new()?;
    /// let MessageChannel { port1: port3, port2: port4 } = MessageChannel::new()?;
    /// port4.post_bytes(b"travels along")?;
    /// port1.post_bytes_with(b"", transfer![port3])?;
    /// let [port3] = port2.recv()?.take_ports()?;
    /// assert_eq!(port3.recv()?.bytes(), b"travels along");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`TransferError`] with the list and a [`PostError`](crate::PostError): those of
    /// [`post_bytes`](Self::post_bytes), and
    /// [`Untransferable`](crate::PostError::Untransferable),
    /// [`TooManyPorts`](crate::PostError::TooManyPorts) (more than 1024),
    /// [`Os`](crate::PostError::Os).
    pub fn post_bytes_with(
        &self,
        bytes: &[u8],
        list: impl Into<TransferList>,
    ) -> Result<(), TransferError> {
        self.halves().0.post_bytes_with(bytes, list)
    }

    /// As [`post_bytes_with`](Self::post_bytes_with), without waiting.
    ///
    /// # Errors
    ///
    /// As [`post_bytes_with`](Self::post_bytes_with), and [`Full`](crate::PostError::Full).
    pub fn try_post_bytes_with(
        &self,
        bytes: &[u8],
        list: impl Into<TransferList>,
    ) -> Result<(), TransferError> {
        self.halves().0.try_post_bytes_with(bytes, list)
    }

    /// As [`post_bytes_with`](Self::post_bytes_with), waiting for room at most so long.
    ///
    /// # Errors
    ///
    /// As [`post_bytes_with`](Self::post_bytes_with), and [`Full`](crate::PostError::Full), not before
    /// the time is up.
    pub fn post_bytes_with_timeout(
        &self,
        bytes: &[u8],
        list: impl Into<TransferList>,
        timeout: Duration,
    ) -> Result<(), TransferError> {
        self.halves().0.post_bytes_with_timeout(bytes, list, timeout)
    }

    /// Posts one value of plain data and gives ports and buffers away with it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use zeroport::{MessageChannel, transfer};
    ///
    /// let MessageChannel { port1, port2 } = MessageChannel::new()?;
    /// for _ in 0..2 {
    ///     let MessageChannel { port1: stays, port2: goes } = MessageChannel::new()?;
    ///     port1.post_pod_with(&1u32, transfer![goes])?;
    ///     port1.try_post_pod_with(&2u32, stays)?; // one port needs no macro
    /// }
    /// let none: [zeroport::MessagePort; 0] = [];
    /// port1.post_pod_with_timeout(&3u32, none, Duration::from_secs(1))?; // as `post_pod`
    /// let counts: Vec<usize> = port2.drain().map(|message| message.port_count()).collect();
    /// assert_eq!(counts, [1, 1, 1, 1, 0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`post_bytes_with`](Self::post_bytes_with).
    pub fn post_pod_with<T: Tagged + NoUninit>(
        &self,
        value: &T,
        list: impl Into<TransferList>,
    ) -> Result<(), TransferError> {
        self.halves().0.post_pod_with(value, list)
    }

    /// As [`post_pod_with`](Self::post_pod_with), without waiting.
    ///
    /// # Errors
    ///
    /// As [`post_bytes_with`](Self::post_bytes_with), and [`Full`](crate::PostError::Full).
    pub fn try_post_pod_with<T: Tagged + NoUninit>(
        &self,
        value: &T,
        list: impl Into<TransferList>,
    ) -> Result<(), TransferError> {
        self.halves().0.try_post_pod_with(value, list)
    }

    /// As [`post_pod_with`](Self::post_pod_with), waiting for room at most so long.
    ///
    /// # Errors
    ///
    /// As [`post_bytes_with`](Self::post_bytes_with), and [`Full`](crate::PostError::Full), not before
    /// the time is up.
    pub fn post_pod_with_timeout<T: Tagged + NoUninit>(
        &self,
        value: &T,
        list: impl Into<TransferList>,
        timeout: Duration,
    ) -> Result<(), TransferError> {
        self.halves().0.post_pod_with_timeout(value, list, timeout)
    }
}
