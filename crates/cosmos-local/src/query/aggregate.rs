//! Folding many values into one: COUNT, SUM, AVG, MIN, MAX and their kin.
//!
//! All of them ignore undefined. SUM and AVG are undefined once any defined value is not a number
//! ("SUM", "AVG", Microsoft Learn, Query language), MIN and MAX once any is an array or object.
//! Without values COUNT and SUM are zero and the others undefined. That SUM is zero follows from clients that merge:
//! .NET's and JavaScript's have no sum once any partition has none (`SumAggregator` of `Azure/azure-cosmos-dotnet-v3`,
//! `GroupByValueEndpointComponent` of `@azure/cosmos`), and a partition may be empty.

use std::collections::HashSet;

use serde_json::Value;

use super::ast::Aggregate;
use super::value;

/// The running state of one aggregate over one group.
#[derive(Debug)]
pub(super) struct Accumulator {
    kind: Aggregate,
    /// Values folded so far.
    count: u64,
    sum: f64,
    best: Option<Value>,
    list: Vec<Value>,
    seen: HashSet<Vec<u8>>,
    /// A value came that the aggregate has no result for.
    is_spoilt: bool,
}

impl Accumulator {
    pub(super) fn new(kind: Aggregate) -> Self {
        Self {
            kind,
            count: 0,
            sum: 0.0,
            best: None,
            list: Vec::new(),
            seen: HashSet::new(),
            is_spoilt: false,
        }
    }

    /// Folds one value in and gives the bytes it now holds on to in addition.
    pub(super) fn add(&mut self, value: Option<&Value>) -> usize {
        let Some(value) = value else { return 0 };
        match self.kind {
            Aggregate::Count => self.count += 1,
            Aggregate::CountIf => self.count += u64::from(*value == Value::Bool(true)),
            Aggregate::Sum | Aggregate::Average => match value::as_double(value) {
                Some(number) => {
                    self.sum += number;
                    self.count += 1;
                }
                None => self.is_spoilt = true,
            },
            Aggregate::Min | Aggregate::Max => return self.compete(value),
            Aggregate::MakeList => {
                self.list.push(value.clone());
                return value::size(value);
            }
            Aggregate::MakeSet => {
                if self.seen.insert(value::encoded(Some(value))) {
                    self.list.push(value.clone());
                    return 2 * value::size(value);
                }
            }
        }
        0
    }

    fn compete(&mut self, value: &Value) -> usize {
        if !value::is_primitive(value) {
            self.is_spoilt = true;
            return 0;
        }
        let ordering = value::compare(Some(value), self.best.as_ref());
        let is_better = match self.kind {
            Aggregate::Min => self.best.is_none() || ordering.is_lt(),
            _ => ordering.is_gt(),
        };
        if !is_better {
            return 0;
        }
        self.best = Some(value.clone());
        value::size(value)
    }

    /// The result, or undefined.
    pub(super) fn result(self) -> Option<Value> {
        if self.is_spoilt {
            return None;
        }
        match self.kind {
            Aggregate::Count | Aggregate::CountIf => Some(Value::from(self.count)),
            Aggregate::Sum => value::number(self.sum),
            Aggregate::Average if self.count > 0 => {
                #[expect(clippy::cast_precision_loss, reason = "row counts are far below 2⁵³")]
                let count = self.count as f64;
                value::number(self.sum / count)
            }
            Aggregate::Average => None,
            Aggregate::Min | Aggregate::Max => self.best,
            Aggregate::MakeList | Aggregate::MakeSet => Some(Value::Array(self.list)),
        }
    }
}
