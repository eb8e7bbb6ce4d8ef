//! Values of any type that can be decoded, made of an input's bytes.
//!
//! The types of commands and queries are asked for their fields as a decoder would ask them, so
//! that an operation that is new tomorrow is made too. What is made is mostly near to something
//! that exists: names are few, and a number that stands for a token is that of a recent entry.

use arbitrary::Unstructured;
use serde::de::value::{self, SeqDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

/// Why there is no value: the type refused what was made for it.
pub type Error = value::Error;

/// Deepest nesting: no type of a command comes near it.
const DEPTH_MAX: u32 = 32;

/// Makes values.
pub struct Maker<'a, 'b> {
    bytes: &'a mut Unstructured<'b>,
    /// The index of the last entry.
    last: u64,
    /// The field that the next value is for.
    field: &'static str,
    depth: u32,
}

impl<'a, 'b> Maker<'a, 'b> {
    /// Uses `bytes` up, at a place in the log.
    pub fn new(bytes: &'a mut Unstructured<'b>, last: u64) -> Self {
        Self {
            bytes,
            last,
            field: "",
            depth: 0,
        }
    }

    /// A value, unless the type refuses it.
    pub fn make<T: DeserializeOwned>(&mut self) -> Result<T, Error> {
        self.field = "";
        T::deserialize(self)
    }

    /// A number below `bound`; 0 when all bytes are used up.
    pub fn below(&mut self, bound: u8) -> u8 {
        self.bytes.arbitrary::<u8>().unwrap_or(0) % bound.max(1)
    }

    /// One of these.
    pub fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::from(self.below(of.len() as u8))]
    }

    fn number(&mut self) -> u64 {
        let field = self.field;
        let recent = self.recent();
        let kind = self.below(16);
        match kind {
            0 => self.bytes.arbitrary().unwrap_or(0),
            1 => self.one_of(&[u64::MAX, u64::MAX - 1, 1 << 32, 1 << 63, 86_400_000]),
            _ if field.ends_with("_ms") => self.one_of(&[1, 0, 300, 2_000, 60_000, 86_400_000]),
            _ if field.ends_with("item_id") => recent << 10 | u64::from(kind & 1),
            _ if ["token", "before", "id", "session", "graph"]
                .iter()
                .any(|part| field.contains(part)) =>
            {
                recent
            }
            _ => u64::from(self.below(6)),
        }
    }

    /// The index of an entry that is not long ago.
    fn recent(&mut self) -> u64 {
        self.last.saturating_sub(self.below(16).into())
    }

    /// Few texts, and now and then one at a border.
    fn text(&mut self) -> String {
        match self.below(40) {
            0 => String::new(),
            1 => "n".repeat(usize::from(self.below(255)) * 3),
            2 => {
                let bytes: [u8; 4] = self.bytes.arbitrary().unwrap_or_default();
                String::from_utf8_lossy(&bytes).into_owned()
            }
            3 => "\u{10ffff}".to_owned(),
            // The lease of a session's lane, if a session was opened there.
            4..=9 => format!("a/a/{}", self.recent()),
            _ => self.one_of(&["a", "b", "c", "ab", "a/b", "ä"]).to_owned(),
        }
    }

    fn raw(&mut self) -> Vec<u8> {
        let length = match self.below(32) {
            0 => 5_000,
            n => usize::from(n % 4),
        };
        vec![self.below(3); length]
    }

    /// How many elements.
    fn count(&mut self) -> usize {
        match self.below(64) {
            63 => 70,
            n => usize::from(n % 4),
        }
    }

    fn deeper<T>(&mut self, make: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        if self.depth == DEPTH_MAX {
            return Err(serde::de::Error::custom("nested too deep"));
        }
        self.depth += 1;
        let made = make(self);
        self.depth -= 1;
        made
    }
}

/// A method that makes one number.
macro_rules! numbers {
    ($($method:ident $visit:ident $kind:ty;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let number = self.number();
            visitor.$visit(<$kind>::try_from(number).unwrap_or(<$kind>::MAX))
        })*
    };
}

impl<'de> Deserializer<'de> for &mut Maker<'_, '_> {
    type Error = Error;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(serde::de::Error::custom("a type that is not told"))
    }

    numbers! {
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
        deserialize_u128 visit_u128 u128;
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(self.below(2) == 1)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_string(self.text())
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_string(self.text())
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_byte_buf(self.raw())
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_byte_buf(self.raw())
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.below(3) {
            0 => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let left = self.count();
        self.deeper(|maker| visitor.visit_seq(Elements::alike(maker, left)))
    }

    /// Ids and hashes are tuples of bytes: one byte of the input is enough for one.
    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        if length >= 8 {
            let mut id = vec![0; length];
            id[0] = self.below(8);
            return visitor.visit_seq(SeqDeserializer::new(id.into_iter()));
        }
        self.deeper(|maker| visitor.visit_seq(Elements::alike(maker, length)))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(length, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let left = self.count();
        self.deeper(|maker| visitor.visit_map(Elements::alike(maker, left)))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deeper(|maker| visitor.visit_seq(Elements::named(maker, fields)))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let variant = u32::from(self.below(variants.len() as u8));
        self.deeper(|maker| visitor.visit_enum(Variant { maker, variant }))
    }

    forward_to_deserialize_any! { f32 f64 char identifier ignored_any }
}

/// The elements of a list, a map or a structure.
struct Elements<'m, 'a, 'b> {
    maker: &'m mut Maker<'a, 'b>,
    /// Of a structure.
    fields: &'static [&'static str],
    left: usize,
}

impl<'m, 'a, 'b> Elements<'m, 'a, 'b> {
    fn alike(maker: &'m mut Maker<'a, 'b>, left: usize) -> Self {
        Self {
            maker,
            fields: &[],
            left,
        }
    }

    fn named(maker: &'m mut Maker<'a, 'b>, fields: &'static [&'static str]) -> Self {
        Self {
            left: fields.len(),
            maker,
            fields,
        }
    }

    fn step(&mut self) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        if let Some((first, rest)) = self.fields.split_first() {
            (self.maker.field, self.fields) = (first, rest);
        }
        true
    }
}

impl<'de> SeqAccess<'de> for Elements<'_, '_, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        match self.step() {
            true => seed.deserialize(&mut *self.maker).map(Some),
            false => Ok(None),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> MapAccess<'de> for Elements<'_, '_, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(&mut *self.maker)
    }
}

/// A variant that was chosen, and what is in it.
struct Variant<'m, 'a, 'b> {
    maker: &'m mut Maker<'a, 'b>,
    variant: u32,
}

impl<'de> EnumAccess<'de> for Variant<'_, '_, '_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let chosen = seed.deserialize(self.variant.into_deserializer())?;
        Ok((chosen, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_, '_, '_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self.maker)
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(Elements::alike(self.maker, length))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_seq(Elements::named(self.maker, fields))
    }
}
