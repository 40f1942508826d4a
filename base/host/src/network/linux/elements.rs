//! Elements of sets as nf_tables keeps them.

use super::super::filter::{Data, Element, Listed, Verdict};
use super::super::layout::{Layout, Mapping, Span};
use super::netlink::{Attributes, Message};
use super::numbers::*;

/// Adds the attributes of an element to a list. Its data is left out where only the key counts.
pub(super) fn push(list: &mut Message, layout: &Layout, span: &Span, data: Option<(&Element, Option<Vec<u8>>)>) {
    let (first, last) = span;
    let together = layout.interval && layout.concatenated();
    list.nested(NFTA_LIST_ELEM, |element| {
        element.nested(NFTA_SET_ELEM_KEY, |key| key.bytes(NFTA_DATA_VALUE, first));
        if together {
            element.nested(NFTA_SET_ELEM_KEY_END, |key| key.bytes(NFTA_DATA_VALUE, last));
        }
        if let Some((wanted, value)) = data {
            push_data(element, wanted, value);
        }
        element
    });
    if layout.interval && !together {
        // The other sets with intervals keep beginnings and ends; an end is the first key that does not belong.
        if let Some(end) = successor(last) {
            list.nested(NFTA_LIST_ELEM, |element| {
                element.nested(NFTA_SET_ELEM_KEY, |key| key.bytes(NFTA_DATA_VALUE, &end));
                element.u32_be(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END)
            });
        }
    }
}

fn push_data(element: &mut Message, wanted: &Element, value: Option<Vec<u8>>) {
    if let Some(value) = value {
        element.nested(NFTA_SET_ELEM_DATA, |data| data.bytes(NFTA_DATA_VALUE, &value));
    } else if let Some(Data::Verdict(verdict)) = &wanted.data {
        let (code, chain) = match verdict {
            Verdict::Accept => (NF_ACCEPT, None),
            Verdict::Drop => (NF_DROP, None),
            Verdict::Continue => (NFT_CONTINUE, None),
            Verdict::Return => (NFT_RETURN, None),
            Verdict::Jump(chain) => (NFT_JUMP, Some(chain)),
            Verdict::Goto(chain) => (NFT_GOTO, Some(chain)),
        };
        element.nested(NFTA_SET_ELEM_DATA, |data| {
            data.nested(NFTA_DATA_VERDICT, |verdict| {
                verdict.u32_be(NFTA_VERDICT_CODE, code.cast_unsigned());
                match chain {
                    Some(chain) => verdict.text(NFTA_VERDICT_CHAIN, chain),
                    None => verdict,
                }
            })
        });
    }
}

/// The key that follows; nothing after the last.
fn successor(key: &[u8]) -> Option<Vec<u8>> {
    let mut next = key.to_vec();
    for byte in next.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return Some(next);
        }
    }
    None
}

/// The key before; nothing before the first.
fn predecessor(key: &[u8]) -> Option<Vec<u8>> {
    let mut previous = key.to_vec();
    for byte in previous.iter_mut().rev() {
        *byte = byte.wrapping_sub(1);
        if *byte != 0xff {
            return Some(previous);
        }
    }
    None
}

/// An element as it was listed, or the end of an interval.
pub(super) struct Entry {
    first: Vec<u8>,
    last: Option<Vec<u8>>,
    end: bool,
    data: Option<Data>,
    counted: Option<(u64, u64)>,
}

/// Takes one entry of a list apart.
pub(super) fn entry(layout: &Layout, attributes: Attributes<'_>) -> Option<Entry> {
    let flags = attributes.u32_be(NFTA_SET_ELEM_FLAGS).unwrap_or_default();
    Some(Entry {
        first: attributes.inside(NFTA_SET_ELEM_KEY).get(NFTA_DATA_VALUE)?.to_vec(),
        last: attributes.inside(NFTA_SET_ELEM_KEY_END).get(NFTA_DATA_VALUE).map(<[u8]>::to_vec),
        end: flags & NFT_SET_ELEM_INTERVAL_END != 0,
        data: data_in(layout, attributes.inside(NFTA_SET_ELEM_DATA)),
        counted: counted_in(attributes),
    })
}

fn data_in(layout: &Layout, data: Attributes<'_>) -> Option<Data> {
    if layout.mapping != Mapping::Verdict {
        return data.get(NFTA_DATA_VALUE).map(|value| Data::Value(layout.mapped(value)));
    }
    let verdict = data.inside(NFTA_DATA_VERDICT);
    let chain = || verdict.text(NFTA_VERDICT_CHAIN).unwrap_or_default();
    Some(Data::Verdict(match verdict.u32_be(NFTA_VERDICT_CODE)?.cast_signed() {
        NF_ACCEPT => Verdict::Accept,
        NF_DROP => Verdict::Drop,
        NFT_RETURN => Verdict::Return,
        NFT_JUMP => Verdict::Jump(chain()),
        NFT_GOTO => Verdict::Goto(chain()),
        _ => Verdict::Continue,
    }))
}

fn counted_in(attributes: Attributes<'_>) -> Option<(u64, u64)> {
    let several =
        attributes.inside(NFTA_SET_ELEM_EXPRESSIONS).into_iter().map(|(_, expression)| Attributes(expression));
    let counter = several
        .chain([attributes.inside(NFTA_SET_ELEM_EXPR)])
        .find(|expression| expression.text(NFTA_EXPR_NAME).as_deref() == Some("counter"))?
        .inside(NFTA_EXPR_DATA);
    Some((counter.u64_be(NFTA_COUNTER_PACKETS)?, counter.u64_be(NFTA_COUNTER_BYTES)?))
}

/// The elements that entries stand for: where beginnings and ends are apart, each beginning with the end after it.
pub(super) fn joined(layout: &Layout, mut entries: Vec<Entry>) -> Vec<Listed> {
    let paired = layout.interval && !layout.concatenated();
    if paired {
        // At one key an interval ends before the next begins.
        entries.sort_by(|one, other| (&one.first, !one.end).cmp(&(&other.first, !other.end)));
    }
    let mut listed = Vec::new();
    let mut entries = entries.into_iter().peekable();
    while let Some(entry) = entries.next() {
        if entry.end {
            continue;
        }
        let end = entries.peek().filter(|next| paired && next.end).and_then(|next| predecessor(&next.first));
        let last = match (entry.last, end) {
            (Some(last), _) | (None, Some(last)) => last,
            (None, None) if paired && entries.peek().is_none() => vec![0xff; entry.first.len()],
            (None, None) => entry.first.clone(),
        };
        let element = Element { key: layout.key(&entry.first, &last), data: entry.data };
        listed.push(Listed { element, counted: entry.counted });
    }
    listed
}
