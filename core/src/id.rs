//! Ids that cannot be mixed up.

/// The text is not an id of this kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {kind} id: a UUID was expected")]
pub struct InvalidId {
    /// What the id would have named.
    pub kind: &'static str,
    /// What was given.
    pub text: String,
}

/// Defines an id type over a UUID: `typed_id!(/// docs  JobId, "job");`. New ids sort by the time they were made (version 7).
#[macro_export]
macro_rules! typed_id {
    ($(#[$meta:meta])* $name:ident, $kind:literal) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name($crate::private::uuid::Uuid);

        impl $name {
            /// A new id that sorts after every earlier one.
            #[allow(clippy::new_without_default)]
            pub fn new() -> Self {
                Self($crate::private::uuid::Uuid::now_v7())
            }

            /// The UUID itself.
            pub fn as_uuid(&self) -> $crate::private::uuid::Uuid {
                self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::InvalidId;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $crate::private::uuid::Uuid::try_parse(text)
                    .map(Self)
                    .map_err(|_| $crate::InvalidId { kind: $kind, text: text.to_owned() })
            }
        }

        impl $crate::private::serde::Serialize for $name {
            fn serialize<S: $crate::private::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> $crate::private::serde::Deserialize<'de> for $name {
            fn deserialize<D: $crate::private::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as $crate::private::serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err($crate::private::serde::de::Error::custom)
            }
        }
    };
}

#[cfg(test)]
mod tests {
    crate::typed_id!(
        /// An id for this test.
        ThingId,
        "thing"
    );

    #[test]
    fn ids_sort_by_age_and_read_back() {
        let first = ThingId::new();
        let second = ThingId::new();
        assert!(first < second);
        assert_eq!(first.to_string().parse::<ThingId>(), Ok(first));
        assert_eq!(first.as_uuid().get_version_num(), 7);
    }

    #[test]
    fn another_text_is_named_in_the_error() {
        let error = "server-7".parse::<ThingId>().unwrap_err();
        assert_eq!(error.to_string(), "\"server-7\" is not a thing id: a UUID was expected");
    }
}
