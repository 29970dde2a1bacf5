{
  pool: { depth: 1,
  note: "never ended }
}
