//! The limit of the disk that images take, kept to after images came.

use coffer_image::Digest;

use super::{Engine, OpenError};
use crate::image_settings::ImageSettings;
use crate::supervisor::of_state;
use crate::{Class, Failure, images};

impl Engine {
    /// Removes images that were used longest ago until the rest takes no more than `images.toml` allows, but none that a box was
    /// made from, and none of those that `came` just now; gives the names that are gone.
    ///
    /// # Errors
    /// A failure of the settings, the store or the database.
    pub fn make_room(&self, came: &[Digest]) -> Result<Vec<String>, Failure> {
        let limit = ImageSettings::of_home(&self.settings().home)?.limit;
        if limit.is_none() {
            return Ok(Vec::new());
        }
        let opened = |error: OpenError| Failure::caused(Class::Config, &error);
        let home = self.home().map_err(|error| opened(error.into()))?;
        let store = images::open(home)?;
        images::keep_to(&store, limit, came, || self.state().map_err(opened)?.all().map_err(of_state))
    }
}
