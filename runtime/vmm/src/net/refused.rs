//! Why frames do not pass.

/// Why a frame does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Refused {
    /// Too short for the headers it says it has, or with headers that are none.
    #[error("a frame with broken headers")]
    Broken,
    /// Neither ARP nor IPv4.
    #[error("a frame that is neither ARP nor IPv4")]
    Protocol,
    /// From another card, or with an answer for another.
    #[error("a frame that names another card as its sender")]
    SenderCard,
    /// From another address.
    #[error("a packet from another address than the guest's")]
    SenderAddress,
    /// With options, which can lead a packet over addresses that it does not name as its destination.
    #[error("a packet with options")]
    Options,
    /// To loopback.
    #[error("a packet to loopback")]
    Loopback,
    /// To an address of the link, among them those where clouds tell machines about themselves.
    #[error("a packet to a link-local address")]
    LinkLocal,
    /// To where a cloud tells machines about themselves, at an address of no link.
    #[error("a packet to the metadata of a cloud")]
    Metadata,
    /// To many, to nobody, or to the guest itself.
    #[error("a packet to an address of no other machine")]
    NoMachine,
    /// To the gateway, and neither an answer nor a question for a name.
    #[error("a packet to the gateway that neither answers nor asks for a name")]
    Gateway,
    /// By UDP, to a port that nobody comes in by, and no answer to the guest.
    #[error("a datagram that answers nothing, to a port that is not published")]
    Unasked,
    /// By UDP, from one port more than the box may have on its host at once.
    #[error("a datagram from a port more than a box may have at once")]
    Ports,
    /// For another guest.
    #[error("a frame that is not for this guest")]
    NotForIt,
    /// To an address of a network of the box's that no box has.
    #[error("a packet to an address of its network that no box has")]
    NoMember,
    /// To or from a box of a network whose boxes do not reach each other.
    #[error("a packet between boxes of a network that keeps them apart")]
    Between,
    /// To or from an address of a network that the box is not in.
    #[error("a packet of a network that the box is not in")]
    OtherNetwork,
    /// No rule of the box's networks lets it out, or in.
    #[error("a packet that no rule of its networks allows")]
    Rules,
    /// Of DHCP, by which one guest could configure another.
    #[error("a packet of DHCP to another box")]
    Dhcp,
    /// For another guest, which takes nothing at the moment.
    #[error("a packet to a box that takes none at the moment")]
    Busy,
}
