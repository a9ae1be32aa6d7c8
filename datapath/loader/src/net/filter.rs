//! Programs in front of and behind an interface's queues by classic filters: at work from one message on, without the grace periods that
//! a tcx link waits for. Which programs, and for how long, may not enter.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption,
};

use super::{NetError, Netlink};

/// Of all protocols (`ETH_P_ALL`), and first of all filters: the two halves of `tcm_info`.
const EVERY_PROTOCOL: u16 = 0x0003;
const FIRST: u32 = 1;
/// Our filters are known by it.
const HANDLE: TcHandle = TcHandle { major: 0, minor: 1 };
const QUEUE: &str = "clsact";
/// Of the queue that holds both filters (`TC_H_MAKE(TC_H_CLSACT, 0)`).
const QUEUE_HANDLE: TcHandle = TcHandle {
    major: u16::MAX,
    minor: 0,
};
const INCOMING: TcHandle = TcHandle {
    major: u16::MAX,
    minor: TcHandle::MIN_INGRESS,
};
const OUTGOING: TcHandle = TcHandle {
    major: u16::MAX,
    minor: TcHandle::MIN_EGRESS,
};

impl Netlink {
    /// Runs a classifier over all that comes in at an interface, and one over all that goes out. What they return is done.
    ///
    /// # Errors
    /// There is no such interface, it has filters already, or the kernel lacks the queue or the filter.
    pub fn add_filters(
        &mut self,
        interface: u32,
        incoming: BorrowedFd<'_>,
        outgoing: BorrowedFd<'_>,
    ) -> Result<(), NetError> {
        let mut queue = message(interface, TcHandle::CLSACT);
        queue.header.handle = QUEUE_HANDLE;
        queue.attributes = vec![TcAttribute::Kind(QUEUE.to_owned())];
        self.request(
            || format!("making a place for filters at interface {interface}"),
            NLM_F_CREATE | NLM_F_EXCL,
            RouteNetlinkMessage::NewQueueDiscipline(queue),
        )?;
        for (parent, program) in [(INCOMING, incoming), (OUTGOING, outgoing)] {
            let mut filter = filter(interface, parent);
            filter
                .attributes
                .push(TcAttribute::Options(options(program)));
            self.request(
                || format!("adding a filter to interface {interface}"),
                NLM_F_CREATE | NLM_F_EXCL,
                RouteNetlinkMessage::NewTrafficFilter(filter),
            )?;
        }
        Ok(())
    }

    /// Removes what [`Netlink::add_filters`] made, in one step where nobody else has filters there. Where there is nothing that is no
    /// error.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove_filters(&mut self, interface: u32) -> Result<(), NetError> {
        let action = || format!("removing filters from interface {interface}");
        for parent in [INCOMING, OUTGOING] {
            let own = RouteNetlinkMessage::DelTrafficFilter(filter(interface, parent));
            if let Err(error) = self.request(action, 0, own)
                && !is_absent(&error)
            {
                return Err(error);
            }
        }
        for parent in [INCOMING, OUTGOING] {
            let all = RouteNetlinkMessage::GetTrafficFilter(message(interface, parent));
            // Whoever else watches interfaces may have put its filters beside ours.
            match self.dump(action, all) {
                Ok(left) if left.is_empty() => {}
                Ok(_) => return Ok(()),
                Err(error) if is_absent(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        let mut queue = message(interface, TcHandle::CLSACT);
        queue.header.handle = QUEUE_HANDLE;
        match self.request(action, 0, RouteNetlinkMessage::DelQueueDiscipline(queue)) {
            Err(error) if !is_absent(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether an interface has a filter of [`Netlink::add_filters`].
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn has_filters(&mut self, interface: u32) -> Result<bool, NetError> {
        let found = self.dump(
            || format!("listing filters of interface {interface}"),
            RouteNetlinkMessage::GetTrafficFilter(message(interface, INCOMING)),
        );
        match found {
            Ok(found) => Ok(!found.is_empty()),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// No interface, no queue, or no filter: the kernel says `EINVAL` of a parent that is not there.
fn is_absent(error: &NetError) -> bool {
    error.is_not_found() || error.source.raw_os_error() == Some(libc::EINVAL)
}

fn message(interface: u32, parent: TcHandle) -> TcMessage {
    let mut message = TcMessage::default();
    // The kernel's own type is signed; indexes are positive.
    message.header.index = interface.cast_signed();
    message.header.parent = parent;
    message
}

fn filter(interface: u32, parent: TcHandle) -> TcMessage {
    let mut filter = message(interface, parent);
    filter.header.handle = HANDLE;
    filter.header.info = FIRST << 16 | u32::from(EVERY_PROTOCOL.to_be());
    filter.attributes = vec![TcAttribute::Kind(TcFilterBpf::KIND.to_owned())];
    filter
}

fn options(program: BorrowedFd<'_>) -> Vec<TcOption> {
    [
        TcFilterBpfOption::ProgFd(program.as_raw_fd().cast_unsigned()),
        TcFilterBpfOption::ProgName("sluice".to_owned()),
        TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
    ]
    .map(TcOption::Bpf)
    .to_vec()
}
