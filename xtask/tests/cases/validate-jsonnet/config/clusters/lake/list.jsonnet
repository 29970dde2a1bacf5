[{ pool: { depth: 1 } }]
