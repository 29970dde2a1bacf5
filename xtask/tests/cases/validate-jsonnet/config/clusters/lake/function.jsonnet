function(depth) { pool: { depth: depth } }
