{ pool: { note: "imported" } }
