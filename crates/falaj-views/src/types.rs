use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Schema, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr, Column, Literal};

/// The types that values have in views. Spark's narrower integers and floats are widened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    /// Of the literal NULL: any type.
    Null,
    Bool,
    Int,
    Float,
    /// Of a literal such as `0.5`: DECIMAL in Spark, taken only where it turns into a double.
    Decimal,
    Text,
    Timestamp,
    Date,
}

impl Type {
    pub fn arrow(self) -> DataType {
        match self {
            Self::Null => DataType::Null,
            Self::Bool => DataType::Boolean,
            Self::Int => DataType::Int64,
            Self::Float | Self::Decimal => DataType::Float64,
            Self::Text => DataType::Utf8,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::Date => DataType::Date32,
        }
    }

    /// The view type of a column of `records`.
    pub fn of(data_type: &DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Boolean => Self::Bool,
            DataType::Int64 => Self::Int,
            DataType::Float64 => Self::Float,
            DataType::Utf8 => Self::Text,
            DataType::Timestamp(TimeUnit::Microsecond, None) => Self::Timestamp,
            DataType::Date32 => Self::Date,
            _ => return None,
        })
    }

    /// Spark's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Null => "void",
            Self::Bool => "boolean",
            Self::Int => "bigint",
            Self::Float => "double",
            Self::Decimal => "decimal",
            Self::Text => "string",
            Self::Timestamp => "timestamp",
            Self::Date => "date",
        }
    }
}

/// An expression and its type.
#[derive(Debug, Clone)]
pub(crate) struct Typed {
    pub expr: Arc<dyn PhysicalExpr>,
    pub ty: Type,
}

impl Typed {
    /// `expr` as a value of type `ty`, cast where it lies in memory as another type.
    pub fn new(
        expr: Arc<dyn PhysicalExpr>,
        ty: Type,
        schema: &Schema,
    ) -> datafusion::common::Result<Self> {
        let expr = if expr.data_type(schema)? == ty.arrow() {
            expr
        } else {
            Arc::new(CastExpr::new(expr, ty.arrow(), None))
        };
        Ok(Self { expr, ty })
    }

    pub fn column(name: &str, index: usize, ty: Type) -> Self {
        Self {
            expr: Arc::new(Column::new(name, index)),
            ty,
        }
    }

    pub fn literal(value: ScalarValue, ty: Type) -> Self {
        Self {
            expr: Arc::new(Literal::new(value)),
            ty,
        }
    }

    pub fn text(value: &str) -> Self {
        Self::literal(ScalarValue::Utf8(Some(value.to_owned())), Type::Text)
    }

    pub fn null(ty: Type) -> Self {
        let value = ScalarValue::try_from(&ty.arrow()).unwrap_or(ScalarValue::Null);
        Self::literal(value, ty)
    }

    /// The literal NULL as a number, where only its having a type matters.
    pub fn or_int(self) -> Self {
        if self.ty == Type::Null {
            Self::null(Type::Int)
        } else {
            self
        }
    }

    /// The value, where it is a literal.
    pub fn value(&self) -> Option<&ScalarValue> {
        self.expr.downcast_ref::<Literal>().map(Literal::value)
    }

    /// The text, where it is a literal text.
    pub fn literal_text(&self) -> Option<&str> {
        match self.value() {
            Some(ScalarValue::Utf8(Some(text))) => Some(text),
            _ => None,
        }
    }

    /// With -0.0 turned into 0.0: to Spark they are equal, to Arrow they are not.
    pub fn one_zero(self) -> Self {
        if self.ty != Type::Float || self.value().is_some() {
            return self;
        }
        let zero = Arc::new(Literal::new(ScalarValue::Float64(Some(0.0))));
        Self {
            expr: Arc::new(BinaryExpr::new(
                self.expr,
                datafusion::logical_expr::Operator::Plus,
                zero,
            )),
            ty: self.ty,
        }
    }

    /// As a double.
    pub fn float(self) -> Self {
        match (self.ty, self.value()) {
            (Type::Float | Type::Decimal, _) => Self {
                ty: Type::Float,
                ..self
            },
            (Type::Null, _) => Self::null(Type::Float),
            _ => Self {
                expr: Arc::new(CastExpr::new(self.expr, DataType::Float64, None)),
                ty: Type::Float,
            },
        }
    }
}
