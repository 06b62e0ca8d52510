//! What a guest that proves itself holds its own card to: whether it lets in who comes by a published port.
//!
//! Found out before the box is made, since the guest itself says nothing to whoever it does not let in.

use coffer_spec::{Network, Tee};

use crate::Class;
use crate::publish::{How, Publish};

/// Why nobody would come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeldInsideError {
    /// A port is published that the guest would open to nobody.
    #[error("the spec's rules for its network card let nobody in at port {port} of {}", .how.word())]
    NotLetIn {
        /// Port of the workload.
        port: u16,
        /// Of which protocol.
        how: How,
    },
    /// The guest would not start.
    #[error("the spec gives its network card no rules, and no guest with a TEE starts without")]
    NoRules,
}

impl HeldInsideError {
    /// What kind of failure it is.
    pub const fn class(self) -> Class {
        match self {
            Self::NotLetIn { .. } => Class::Usage,
            Self::NoRules => Class::Config,
        }
    }

    /// What the operator can do.
    pub const fn hint(self) -> &'static str {
        match self {
            Self::NotLetIn { .. } => "write the spec anew with that port published",
            Self::NoRules => "write the spec anew: an earlier version gave none",
        }
    }
}

/// Refuses published ports that the guest's own rules keep shut, and a guest that has none.
///
/// # Errors
/// [`HeldInsideError`].
pub fn check(tee: Tee, card: Option<&Network>, published: &[Publish]) -> Result<(), HeldInsideError> {
    let Some(card) = card.filter(|_| tee != Tee::None) else { return Ok(()) };
    let rules = card.rules.as_ref().ok_or(HeldInsideError::NoRules)?;
    let is_shut = |publish: &&Publish| match publish.how {
        How::Tcp => !rules.tcp.contains(&publish.guest),
        How::Udp => !rules.udp.contains(&publish.guest),
        How::RaTls | How::Tls | How::Owners => false,
    };
    match published.iter().find(is_shut) {
        Some(Publish { guest, how, .. }) => Err(HeldInsideError::NotLetIn { port: *guest, how: *how }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use coffer_spec::CardRules;

    use super::*;
    use crate::publish::tests::one;

    #[test]
    fn a_published_port_is_one_that_the_guest_lets_in() {
        let rules = Some(CardRules::of_own_wire(vec![80], vec![53]));
        let card = Network { rules, ..Network::user() };
        let judged = |tee, published: &[&str]| {
            let published: Vec<_> = published.iter().map(|text| one(text)).collect();
            check(tee, Some(&card), &published)
        };
        assert_eq!(judged(Tee::Snp, &["8080:80", "53:53/udp", "443/ra-tls"]), Ok(()));
        let shut = |port, how| Err(HeldInsideError::NotLetIn { port, how });
        assert_eq!(judged(Tee::Snp, &["8080:80", "8081:81"]), shut(81, How::Tcp));
        assert_eq!(judged(Tee::Simulated, &["53:80/udp"]), shut(80, How::Udp));
        assert_eq!(judged(Tee::None, &["8081:81"]), Ok(()), "held outside alone");
    }

    #[test]
    fn a_card_without_rules_is_a_plain_boxs_alone() {
        let card = Network::user();
        assert_eq!(check(Tee::None, Some(&card), &[]), Ok(()));
        assert_eq!(check(Tee::Snp, Some(&card), &[]), Err(HeldInsideError::NoRules));
        assert_eq!(check(Tee::Snp, None, &[one("80")]), Ok(()));
    }
}
