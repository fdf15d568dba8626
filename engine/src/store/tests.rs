//! Tests of the store: folders, retries, lost answers, and stores that ignore conditions.
