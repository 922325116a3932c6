//! The few functions that neither `DataFusion` nor `datafusion-spark` computes as Spark does.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array};
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Float64Type, Int64Type, TimestampMicrosecondType,
};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::calendar::{self, Part, Unit};
use crate::types::Type;

/// Name of [`Op::Later`], which gives a window's end.
pub(crate) const LATER: &str = "falaj_later";

/// What a [`Kernel`] computes of its one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    /// Part of a timestamp.
    Part(Part),
    /// Begin of a unit of time.
    Trunc(Unit),
    /// A timestamp, later by so many microseconds.
    Later(i64),
    /// The day of a timestamp.
    Day,
    /// The first moment of a date.
    Midnight,
    /// A double rounded to so many decimals.
    Round(usize),
    /// The square root of a double; NaN below zero, where `DataFusion`'s own stops.
    Sqrt,
}

/// One function of one argument; null in, null out.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Kernel {
    op: Op,
    signature: Signature,
}

impl Kernel {
    pub fn udf(op: Op) -> Arc<ScalarUDF> {
        Arc::new(ScalarUDF::from(Self {
            op,
            signature: Signature::any(1, Volatility::Immutable),
        }))
    }
}

impl ScalarUDFImpl for Kernel {
    fn name(&self) -> &'static str {
        match self.op {
            Op::Part(_) => "falaj_part",
            Op::Trunc(_) => "falaj_trunc",
            Op::Later(_) => LATER,
            Op::Day => "falaj_day",
            Op::Midnight => "falaj_midnight",
            Op::Round(_) => "falaj_round",
            Op::Sqrt => "falaj_sqrt",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.op {
            Op::Part(_) => Type::Int,
            Op::Trunc(_) | Op::Later(_) | Op::Midnight => Type::Timestamp,
            Op::Day => Type::Date,
            Op::Round(_) | Op::Sqrt => Type::Float,
        }
        .arrow())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [arg] = args.args.as_slice() else {
            return internal_err!("one argument");
        };
        match arg {
            ColumnarValue::Array(array) => Ok(ColumnarValue::Array(apply(self.op, array))),
            ColumnarValue::Scalar(value) => {
                let array = apply(self.op, &value.to_array()?);
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(
                    &array, 0,
                )?))
            }
        }
    }
}

fn apply(op: Op, array: &ArrayRef) -> ArrayRef {
    match op {
        Op::Part(part) => {
            let times = array.as_primitive::<TimestampMicrosecondType>();
            let parts: Int64Array = times.unary::<_, Int64Type>(|us| calendar::part(part, us));
            Arc::new(parts)
        }
        Op::Trunc(unit) => Arc::new(
            array
                .as_primitive::<TimestampMicrosecondType>()
                .unary::<_, TimestampMicrosecondType>(|us| calendar::trunc(unit, us)),
        ),
        Op::Later(by) => Arc::new(
            array
                .as_primitive::<TimestampMicrosecondType>()
                .unary::<_, TimestampMicrosecondType>(|us| us.saturating_add(by)),
        ),
        Op::Day => Arc::new(
            array
                .as_primitive::<TimestampMicrosecondType>()
                .unary::<_, Date32Type>(calendar::day),
        ),
        Op::Midnight => Arc::new(
            array
                .as_primitive::<Date32Type>()
                .unary::<_, TimestampMicrosecondType>(calendar::midnight),
        ),
        Op::Sqrt => Arc::new(
            array
                .as_primitive::<Float64Type>()
                .unary::<_, Float64Type>(f64::sqrt),
        ),
        Op::Round(scale) => Arc::new(
            array
                .as_primitive::<Float64Type>()
                .unary::<_, Float64Type>(|v| calendar::round(v, scale)),
        ),
    }
}
