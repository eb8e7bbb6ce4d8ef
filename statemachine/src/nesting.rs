//! Bounds how deep a decoded value nests.
//!
//! A composite's responses and a composite's refusal hold values of their own type, and the decoder
//! recurses into them: a few megabytes of hostile bytes would overflow the stack, which no caller
//! can catch. A composite holds no composite, so the inner value is decoded with that one variant
//! refused, and the recursion ends at the second level.

use std::fmt;

use serde::de::value::U32Deserializer;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error, IntoDeserializer, Visitor,
};

/// Decodes an enum unless it is of the variant with this index.
pub(crate) fn decode_without<'de, T, D>(decoder: D, refused: u32) -> Result<T, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(Without {
        inner: decoder,
        refused,
    })
}

/// A decoder, a visitor or an access with one variant refused.
struct Without<I> {
    inner: I,
    refused: u32,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Without<D> {
    type Error = D::Error;

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = Without {
            inner: visitor,
            refused: self.refused,
        };
        self.inner.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, D::Error> {
        Err(D::Error::custom("only an enum can be decoded here"))
    }

    // All that serde knows, because the trait asks for all of it. Each of them, also the floats
    // that no stored type has, ends in the error above.
    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Without<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.inner.visit_enum(Without {
            inner: access,
            refused: self.refused,
        })
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Without<A> {
    type Error = A::Error;
    type Variant = A::Variant;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, A::Variant), A::Error> {
        let (index, variant) = self.inner.variant::<u32>()?;
        if index == self.refused {
            return Err(A::Error::custom("a composite inside a composite"));
        }
        let index: U32Deserializer<A::Error> = index.into_deserializer();
        Ok((seed.deserialize(index)?, variant))
    }
}
