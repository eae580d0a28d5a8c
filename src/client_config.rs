//! What the knobs of producers and consumers have in common: they are found, checked and listed by Kafka's names.

use std::collections::BTreeMap;

use crate::config::ConfigEntry;
use crate::config::Property;
use crate::error::Error;
use crate::error::Result;

/// Tells whether a property is of a family that is about the network alone. They may be secrets, so they are not kept.
pub(crate) fn is_about_a_connection(key: &str) -> bool {
    ["ssl.", "sasl."].iter().any(|family| key.starts_with(family))
}

/// Finds a client's property by its name and checks the value.
pub(crate) fn checked(
    properties: &'static [Property],
    of: &'static str,
    key: &str,
    value: &str,
) -> Result<&'static Property> {
    let property = properties
        .iter()
        .find(|property| property.name() == key)
        .ok_or_else(|| Error::UnknownConfig { key: key.to_owned(), of })?;
    property.check(value)?;
    property.check_available(value)?;
    Ok(property)
}

/// Lists a client's properties: their values as set or by default, and whether they do something.
pub(crate) fn entries(
    properties: &'static [Property],
    set: &BTreeMap<&'static str, String>,
) -> Vec<ConfigEntry> {
    let entry = |property: &Property| {
        let set = set.get(property.name());
        let value = set.map_or(property.default(), String::as_str);
        property.entry(value.to_owned(), set.is_none())
    };
    properties.iter().map(entry).collect()
}
