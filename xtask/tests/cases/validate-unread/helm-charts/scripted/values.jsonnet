{ name: "scripted", depth: 1 }
