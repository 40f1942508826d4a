//! A netlink socket and the three ways to use it: ask and be acknowledged, list, and change as one transaction.

use std::io;
use std::sync::{Mutex, PoisonError};

use netlink_sys::Socket;
use rustix::net::sockopt;

use super::message::{Attributes, Message, Reply};
use super::numbers::*;

/// Room for a read. The kernel fills at most 32 KiB of a list into one.
const READ: usize = 64 << 10;
/// Room for what is sent at once. A transaction has to go out in one piece.
const SEND: usize = 8 << 20;
/// How many bytes of requests are sent before their acknowledgements are read.
const PIPELINE: usize = 32 << 10;
/// How often a list is begun again because something changed meanwhile.
const LIST_ATTEMPTS: u32 = 8;

/// The kernel said no.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// Error number, as an I/O error.
    pub(crate) source: io::Error,
    /// What the kernel said beyond the number; often empty.
    pub(crate) explanation: String,
    /// Which of the messages that were sent together.
    pub(crate) index: usize,
}

impl Refusal {
    /// An error of the socket itself.
    fn local(source: io::Error) -> Self {
        Self { source, explanation: String::new(), index: 0 }
    }
}

/// A socket. It belongs to the namespace of the thread that opened it, and can be used by any.
#[derive(Debug)]
pub(crate) struct Connection {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Connection {
    /// Opens a socket of `NETLINK_ROUTE` or `NETLINK_NETFILTER` in the namespace of this thread.
    pub(crate) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        // Without these errors are less clear, and nothing else is lost.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        if sockopt::set_socket_send_buffer_size_force(&socket, SEND).is_err() {
            sockopt::set_socket_send_buffer_size(&socket, SEND)?;
        }
        if sockopt::set_socket_recv_buffer_size_force(&socket, SEND).is_err() {
            sockopt::set_socket_recv_buffer_size(&socket, SEND)?;
        }
        let buffer = Vec::with_capacity(READ);
        Ok(Self { inner: Mutex::new(Inner { socket, sequence: 0, buffer }) })
    }

    /// Asks for a change and waits until it is done.
    pub(crate) fn change(&self, message: Message) -> Result<(), Refusal> {
        self.change_each(vec![message]).into_iter().next().map_or(Ok(()), Err)
    }

    /// Asks for changes, in this order; every one is tried. Returns what was refused.
    pub(crate) fn change_each(&self, messages: Vec<Message>) -> Vec<Refusal> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut refusals = Vec::new();
        let mut messages = messages.into_iter().enumerate().peekable();
        while let Some((first, message)) = messages.next() {
            let mut together = vec![message];
            let mut length = together[0].len();
            while let Some((_, next)) = messages.next_if(|(_, next)| length + next.len() <= PIPELINE) {
                length += next.len();
                together.push(next);
            }
            match inner.pipelined(together) {
                Ok(refused) => refusals.extend(refused.into_iter().map(|mut refusal| {
                    refusal.index += first;
                    refusal
                })),
                Err(mut refusal) => {
                    refusal.index += first;
                    refusals.push(refusal);
                    break;
                }
            }
        }
        refusals
    }

    /// Asks for one thing and returns it.
    pub(crate) fn get(&self, message: Message) -> Result<Reply, Refusal> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let sequence = inner.send(vec![message])?;
        let mut found = None;
        loop {
            for reply in inner.receive()? {
                if reply.sequence != sequence {
                    continue;
                }
                if reply.kind != NLMSG_ERROR {
                    found = Some(reply);
                } else if let Some(refusal) = refusal_in(&reply) {
                    return Err(refusal);
                } else {
                    return found.ok_or_else(|| Refusal::local(io::ErrorKind::InvalidData.into()));
                }
            }
        }
    }

    /// Lists everything that `message` asks for. Begins again when it changes meanwhile.
    pub(crate) fn list(&self, message: &Message) -> Result<Vec<Reply>, Refusal> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..LIST_ATTEMPTS {
            if let Some(replies) = inner.list(message.clone())? {
                return Ok(replies);
            }
        }
        Err(Refusal::local(io::Error::new(io::ErrorKind::Interrupted, "the list changed each time it was read")))
    }

    /// Does all of this or nothing of it: a transaction of nf_tables. Returns every refusal.
    pub(crate) fn transaction(&self, messages: Vec<Message>) -> Result<(), Vec<Refusal>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.transaction(messages)
    }
}

impl Inner {
    /// Sends messages together and returns the number of the first.
    fn send(&mut self, messages: Vec<Message>) -> Result<u32, Refusal> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        for message in messages {
            self.sequence = self.sequence.wrapping_add(1);
            let Some(message) = message.finish(self.sequence) else {
                return Err(Refusal::local(io::Error::new(io::ErrorKind::InvalidInput, "a name or list is too long")));
            };
            bytes.extend_from_slice(&message);
        }
        let sent = self.socket.send(&bytes, 0).map_err(Refusal::local)?;
        if sent == bytes.len() { Ok(first) } else { Err(Refusal::local(io::ErrorKind::WriteZero.into())) }
    }

    fn receive(&mut self) -> Result<Vec<Reply>, Refusal> {
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => return Ok(Reply::split(&self.buffer)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Refusal::local(error)),
            }
        }
    }

    /// Sends changes and reads as many acknowledgements.
    fn pipelined(&mut self, messages: Vec<Message>) -> Result<Vec<Refusal>, Refusal> {
        let count = messages.len();
        let messages = messages.into_iter().map(Message::acknowledged).collect();
        let first = self.send(messages)?;
        let (mut answered, mut refusals) = (0, Vec::new());
        while answered < count {
            for reply in self.receive()? {
                let index = reply.sequence.wrapping_sub(first) as usize;
                if index >= count || reply.kind != NLMSG_ERROR {
                    continue;
                }
                answered += 1;
                refusals.extend(refusal_in(&reply).map(|refusal| Refusal { index, ..refusal }));
            }
        }
        Ok(refusals)
    }

    /// One attempt at a list; nothing when it changed while it was read.
    fn list(&mut self, message: Message) -> Result<Option<Vec<Reply>>, Refusal> {
        let sequence = self.send(vec![message])?;
        let (mut replies, mut changed) = (Vec::new(), false);
        loop {
            for reply in self.receive()? {
                if reply.sequence != sequence {
                    continue;
                }
                changed |= reply.flags & NLM_F_DUMP_INTR != 0;
                match reply.kind {
                    NLMSG_ERROR | NLMSG_DONE => {
                        return refusal_in(&reply).map_or(Ok((!changed).then_some(replies)), Err);
                    }
                    _ => replies.push(reply),
                }
            }
        }
    }

    fn transaction(&mut self, mut messages: Vec<Message>) -> Result<(), Vec<Refusal>> {
        let count = messages.len();
        let edge = |kind| Message::new(kind, NLM_F_REQUEST, &[0, 0, 0, NFNL_SUBSYS_NFTABLES]);
        // The acknowledgement of the last change comes when the whole is done or undone.
        if let Some(last) = messages.pop() {
            messages.push(last.acknowledged());
        }
        messages.insert(0, edge(NFNL_MSG_BATCH_BEGIN));
        messages.push(edge(NFNL_MSG_BATCH_END));
        let first = self.send(messages).map_err(|refusal| vec![refusal])?;
        let mut refusals = Vec::new();
        loop {
            for reply in self.receive().map_err(|refusal| vec![refusal])? {
                let place = reply.sequence.wrapping_sub(first) as usize;
                if reply.kind != NLMSG_ERROR || place > count {
                    continue;
                }
                let index = place.saturating_sub(1);
                refusals.extend(refusal_in(&reply).map(|refusal| Refusal { index, ..refusal }));
                // Refused as a whole, it answers for the first message and perhaps for no other.
                if place == count || (place == 0 && !refusals.is_empty()) {
                    return if refusals.is_empty() { Ok(()) } else { Err(refusals) };
                }
            }
        }
    }
}

/// What an acknowledgement or the end of a list says went wrong.
fn refusal_in(reply: &Reply) -> Option<Refusal> {
    let code = i32::from_ne_bytes(*reply.fixed()?);
    if code >= 0 {
        return None;
    }
    // An error repeats the header of the request before it explains itself; the end of a list does not.
    let skip = if reply.kind == NLMSG_ERROR { 20 } else { 4 };
    let explained = reply.flags & NLM_F_ACK_TLVS != 0;
    let explanation = reply.attributes(skip).text(NLMSGERR_ATTR_MSG).filter(|_| explained).unwrap_or_default();
    Some(Refusal { source: io::Error::from_raw_os_error(-code), explanation, index: 0 })
}

/// The attributes of a reply of nf_tables or conntrack, behind its four bytes.
impl<'a> From<&'a Reply> for Attributes<'a> {
    fn from(reply: &'a Reply) -> Self {
        reply.attributes(4)
    }
}
