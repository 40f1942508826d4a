//! A YAML document as a tree in which every value knows its line. It cannot be printed: values of Secrets are in it.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

/// A value and the line it begins on, counted from 1.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) line: u64,
    pub(super) tree: Tree,
}

/// What a value can be.
#[derive(Clone)]
pub(super) enum Tree {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Key>),
}

/// An entry of a map.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) name: String,
    /// Line of the name.
    pub(super) line: u64,
    pub(super) value: Node,
}

impl Node {
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        self.keys().iter().find(|key| key.name == name).map(|key| &key.value)
    }

    pub(super) fn keys(&self) -> &[Key] {
        match &self.tree {
            Tree::Map(keys) => keys,
            _ => &[],
        }
    }

    pub(super) fn items(&self) -> &[Self] {
        match &self.tree {
            Tree::List(items) => items,
            _ => &[],
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.tree {
            Tree::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The line of a field such as `spec.additionalFiles[2].path`, or of what comes nearest to it on the way.
    pub(super) fn line_of(&self, field: &str) -> u64 {
        let mut node = self;
        let mut line = self.line;
        for part in field.split(['.', '[']).filter(|part| !part.is_empty()) {
            let next = match part.strip_suffix(']').and_then(|index| index.parse::<usize>().ok()) {
                Some(index) => node.items().get(index).map(|item| (item.line, item)),
                None => node.keys().iter().find(|key| key.name == part).map(|key| (key.line, &key.value)),
            };
            let Some((found, value)) = next else { break };
            (line, node) = (found, value);
        }
        line
    }

    /// The same without lines, and without nulls, which the API server drops too.
    pub(super) fn to_json(&self) -> Value {
        match &self.tree {
            Tree::Null => Value::Null,
            Tree::Bool(value) => Value::Bool(*value),
            Tree::Number(number) => Value::Number(number.clone()),
            Tree::Text(text) => Value::String(text.clone()),
            Tree::List(items) => items.iter().map(Self::to_json).collect(),
            Tree::Map(keys) => {
                let kept = keys.iter().filter(|key| !matches!(key.value.tree, Tree::Null));
                Value::Object(kept.map(|key| (key.name.clone(), key.value.to_json())).collect::<Map<_, _>>())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Tree>::deserialize(deserializer)?;
        Ok(Self { line: spanned.referenced.line(), tree: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("text, a number, true, false, a list or a map")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Number::from_f64(value).map_or(Tree::Null, Tree::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Tree, E> {
        Ok(Tree::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut keys = Vec::new();
        while let Some((name, value)) = access.next_entry::<Spanned<String>, Node>()? {
            keys.push(Key { name: name.value, line: name.referenced.line(), value });
        }
        Ok(Tree::Map(keys))
    }
}
