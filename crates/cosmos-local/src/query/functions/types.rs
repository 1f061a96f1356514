//! What type a value has, and choices by it.

use serde_json::Value;

use super::{Args, Builtin, flag, integer, pure, value};
use crate::query::eval::{boolean, numeric};
use crate::query::position::ordinal;
use crate::query::value::{self as values, Maybe};

pub(super) const BUILTINS: &[Builtin] = &[
    pure("IS_DEFINED", 1, 1, |_, args| {
        Ok(boolean(value(&args, 0).is_some()))
    }),
    pure("IS_NULL", 1, 1, |_, args| is(&args, Value::is_null)),
    pure("IS_BOOL", 1, 1, |_, args| is(&args, Value::is_boolean)),
    // The name that clients write into resume filters (`OrderByCrossPartitionQueryPipelineStage`
    // of `Azure/azure-cosmos-dotnet-v3`).
    pure("IS_BOOLEAN", 1, 1, |_, args| is(&args, Value::is_boolean)),
    pure("IS_NUMBER", 1, 1, |_, args| is(&args, Value::is_number)),
    pure("IS_STRING", 1, 1, |_, args| is(&args, Value::is_string)),
    pure("IS_ARRAY", 1, 1, |_, args| is(&args, Value::is_array)),
    pure("IS_OBJECT", 1, 1, |_, args| is(&args, Value::is_object)),
    pure("IS_PRIMITIVE", 1, 1, |_, args| {
        is(&args, values::is_primitive)
    }),
    pure("IS_INTEGER", 1, 1, |_, args| {
        is(&args, |value| {
            values::as_double(value).is_some_and(|double| double.fract() == 0.0)
        })
    }),
    // JSON holds no other.
    pure("IS_FINITE_NUMBER", 1, 1, |_, args| {
        is(&args, Value::is_number)
    }),
    pure("IIF", 3, 3, |_, mut args| {
        let is_met = flag(&args, 0) == Some(true);
        Ok(args.swap_remove(if is_met { 1 } else { 2 }))
    }),
    // CHOOSE counts from one.
    pure("CHOOSE", 2, usize::MAX, |_, mut args| {
        let chosen = integer(&args, 0)
            .filter(|position| *position >= 1)
            .and_then(|position| usize::try_from(position).ok())
            .filter(|position| *position < args.len());
        Ok(chosen.and_then(|position| args.swap_remove(position)))
    }),
    pure("DOCUMENTID", 1, 1, |_, args| Ok(document_id(&args))),
];

fn is<'e>(
    args: &Args<'_>,
    test: impl FnOnce(&Value) -> bool,
) -> crate::query::error::Result<Maybe<'e>> {
    Ok(boolean(value(args, 0).is_some_and(test)))
}

/// The number in a document's `_rid`.
fn document_id<'e>(args: &Args<'_>) -> Maybe<'e> {
    let rid = value(args, 0)?.get("_rid")?.as_str()?;
    #[expect(
        clippy::cast_precision_loss,
        reason = "all numbers of the language are doubles"
    )]
    numeric(ordinal(rid) as f64)
}
