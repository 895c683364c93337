//! What both dialects say of tables that tie users to cost centers and roles. Nothing here is bound: names of the map alone.

use crate::config::schema_map::{CostCentersMap, LinkMap};
use crate::inventory::Membership;

use super::sql::quoted;

/// The cost center of each user who has one, where a link table tells it: `owner`, `center`, `number`. Who is in several gets
/// the smallest id and [`Membership::SEVERAL`].
///
/// `from` begins with the link table as `l`; what follows may join it with a batch.
pub(super) fn members(map: &CostCentersMap, link: &LinkMap, centers: &str, from: &str) -> String {
    format!(
        "SELECT l.{user} AS owner, min(l.{to}) AS center,
                CASE WHEN count(*) > 1 THEN {SEVERAL} ELSE coalesce(min(o.{number}), 0) END AS number
           FROM {from} LEFT JOIN {centers} o ON o.{id} = l.{to} WHERE l.{to} IS NOT NULL GROUP BY l.{user}",
        user = quoted(&link.user),
        to = quoted(&link.to),
        number = quoted(&map.number),
        id = quoted(&map.id),
        SEVERAL = Membership::SEVERAL,
    )
}
