//! What the page says about privacy: the policy that really runs.

use falaj_serve::{FieldPanel, PrivacyPanel, PurposePanel, SubjectPanel};

use crate::plan::Plan;

/// The panel of a plan.
pub fn panel(plan: &Plan) -> PrivacyPanel {
    let description = plan.policy.description();
    PrivacyPanel {
        controller: description.controller.clone().unwrap_or_default(),
        contact: description.contact.clone(),
        k: description.k.into(),
        delta_k: description.delta_k.into(),
        subject: plan
            .config
            .privacy
            .subject
            .as_ref()
            .map(|subject| SubjectPanel {
                from: subject.from.clone(),
                required: subject.required,
            }),
        fields: description
            .kept
            .iter()
            .map(|field| FieldPanel {
                name: field.name.clone(),
                from: field.from.clone(),
                kind: field.kind.name().to_owned(),
                class: field.class.name().to_owned(),
                treatment: field.treatment.clone(),
                purpose: field.purpose.clone(),
            })
            .collect(),
        never: description.never.clone(),
        purposes: description
            .purposes
            .iter()
            .map(|purpose| PurposePanel {
                name: purpose.name.clone(),
                legal_basis: purpose.legal_basis.name().to_owned(),
                retention: purpose.retention.clone(),
                data_subjects: purpose.data_subjects.clone().unwrap_or_default(),
                consent: purpose.consent.map(|consent| consent.name().to_owned()),
            })
            .collect(),
        topic_retention: plan.config.topic.retention.to_string(),
        requested: (plan.config.source.kind() == "http").then(|| plan.policy.inc().to_vec()),
    }
}
