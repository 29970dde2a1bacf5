{
  pool: { depth: "deep", widht: 1 },
}
