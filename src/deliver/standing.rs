//! Which credentials of a mail that waited still stand in the database. Each is looked for by itself: a user whose PIN was
//! changed since still needs to be told the password. Where the user was moved to does not matter.

use crate::journal::PendingMail;
use crate::store::AfterImage;

/// What to look for, one for each credential that the mail tells.
pub(super) fn images(mail: &PendingMail) -> Vec<AfterImage> {
    let nothing = || AfterImage::of(mail.user);
    let written = &mail.written;
    let mut images = Vec::with_capacity(3);
    if mail.pin.is_some() {
        // Whatever its end is by now: it opens doors, and its user is to know it.
        images.push(AfterImage { held: written.pins.iter().map(|(value, _)| value.clone()).collect(), ..nothing() });
    }
    if mail.code.is_some() {
        images.push(AfterImage { code: written.code.clone(), ..nothing() });
    }
    if mail.password.is_some() {
        images.push(AfterImage { password: written.password.clone(), ..nothing() });
    }
    images
}

/// Takes out of the mail what does not stand, by the answers to [`images`]; whether anything is left.
pub(super) fn keep(mail: &mut PendingMail, stands: &mut impl Iterator<Item = bool>) -> bool {
    let mut stands = || stands.next().unwrap_or(false);
    if mail.pin.is_some() && !stands() {
        (mail.pin, mail.expires) = (None, None);
    }
    if mail.code.is_some() && !stands() {
        mail.code = None;
    }
    if mail.password.is_some() && !stands() {
        mail.password = None;
    }
    mail.pin.is_some() || mail.code.is_some() || mail.password.is_some()
}
