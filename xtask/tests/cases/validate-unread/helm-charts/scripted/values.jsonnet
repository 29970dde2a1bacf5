{
  name: "scripted",
  depth: error "how deep is it?",
}
