{ pool: { note: "whoever reads this" } }
