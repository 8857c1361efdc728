"""The paper's claims, judged on records."""
