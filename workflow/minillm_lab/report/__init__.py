"""The comparison of all variants: tables, the README's section, key learnings."""
