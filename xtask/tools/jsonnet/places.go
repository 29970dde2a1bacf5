package main

import (
	"encoding/json"
	"maps"
	"path/filepath"

	"github.com/google/go-jsonnet"
	"github.com/google/go-jsonnet/ast"
)

// The places of the keys in what was made, as far as the text tells them: jsonnet itself forgets them. A key that is made in
// a loop, or in either branch of a condition, has none.
type places map[string]*keyPlace

type keyPlace struct {
	// The file is left out if it is that of the key above.
	place
	// Of the keys below this one.
	Below places `json:"below,omitempty"`
}

// No search looks at more nodes than this, nor deeper than this.
const (
	mostNodes = 100_000
	deepest   = 100
	// Keys below this many others have the place of the last one above them: readers of JSON have limits, too.
	deepestKey = 40
)

// Variables and what they are bound to. An inner scope leads to those around it.
type scope struct {
	bound  map[ast.Identifier]expression
	around *scope
}

type expression struct {
	node  ast.Node
	scope *scope
}

// An object in the text, or something that may be one with any keys: then it has no node.
type object struct {
	node  *ast.DesugaredObject
	scope *scope
	// The keys that another branch of a condition has as well.
	unclear map[string]bool
}

type finder struct {
	repository *repository
	vm         *jsonnet.VM
	nodes      int
}

// Finds the places of all keys in a text of JSON that a file has made.
func findPlaces(r *repository, vm *jsonnet.VM, file string, text string) places {
	var made any
	root, _, err := vm.ImportAST("", file)
	if err != nil || json.Unmarshal([]byte(text), &made) != nil {
		return nil
	}
	f := finder{repository: r, vm: vm}
	return f.below(made, []expression{{node: root}}, file, 0)
}

// The places of the keys of a value, which is made by one of these expressions over the next, and so on. The key of the value
// itself is in the file `above`.
func (f *finder) below(made any, expressions []expression, above string, depth int) places {
	keys, isObject := made.(map[string]any)
	if !isObject || len(expressions) == 0 || depth == deepestKey {
		return nil
	}
	var objects []object
	for _, expression := range expressions {
		objects = append(objects, f.objects(expression, 0)...)
	}
	found := places{}
	for key, value := range keys {
		var at *keyPlace
		file := above
		var bodies []expression
		for _, object := range objects {
			field, isClear := object.field(key)
			if !isClear {
				break
			}
			if field == nil {
				continue
			}
			if at == nil {
				loc := field.LocRange
				at = &keyPlace{place: place{Line: loc.Begin.Line, Column: loc.Begin.Column}}
				if loc.FileName != above {
					file = loc.FileName
					at.File = file
				}
			}
			bodies = append(bodies, expression{field.Body, object.inner()})
			if !field.PlusSuper {
				break
			}
		}
		if at != nil {
			at.Below = f.below(value, bodies, file, depth+1)
			found[key] = at
		}
	}
	return found
}

// The objects that an expression adds up, the last one first.
func (f *finder) objects(e expression, depth int) []object {
	unknown := []object{{}}
	f.nodes++
	if f.nodes > mostNodes || depth > deepest {
		return unknown
	}
	depth++
	switch node := e.node.(type) {
	case *ast.DesugaredObject:
		return []object{{node: node, scope: e.scope}}
	case *ast.Local:
		return f.objects(expression{node.Body, e.scope.with(node.Binds)}, depth)
	case *ast.Var:
		if bound, ok := e.scope.find(node.Id); ok {
			return f.objects(bound, depth)
		}
	case *ast.Binary:
		if node.Op == ast.BopPlus {
			right := f.objects(expression{node.Right, e.scope}, depth)
			return append(right, f.objects(expression{node.Left, e.scope}, depth)...)
		}
	case *ast.Conditional:
		yes := f.objects(expression{node.BranchTrue, e.scope}, depth)
		no := f.objects(expression{node.BranchFalse, e.scope}, depth)
		return append(unclear(yes, no), unclear(no, yes)...)
	case *ast.Apply:
		if body, ok := f.called(node, e.scope, depth); ok {
			return f.objects(body, depth)
		}
	case *ast.Index:
		if key, ok := node.Index.(*ast.LiteralString); ok {
			for _, object := range f.objects(expression{node.Target, e.scope}, depth) {
				field, isClear := object.field(key.Value)
				if !isClear {
					break
				}
				if field != nil && !field.PlusSuper {
					return f.objects(expression{field.Body, object.inner()}, depth)
				}
			}
		}
	case *ast.Import:
		if root := f.imported(node); root != nil {
			return f.objects(expression{node: root}, depth)
		}
	}
	return unknown
}

// What a call returns, if the text tells which function that is.
func (f *finder) called(call *ast.Apply, from *scope, depth int) (expression, bool) {
	target := expression{call.Target, from}
	for range deepest {
		switch node := target.node.(type) {
		case *ast.Var:
			bound, ok := target.scope.find(node.Id)
			if !ok {
				return expression{}, false
			}
			target = bound
		case *ast.Local:
			target = expression{node.Body, target.scope.with(node.Binds)}
		case *ast.Function:
			return expression{node.Body, arguments(node, call, target.scope, from)}, true
		default:
			return expression{}, false
		}
	}
	return expression{}, false
}

// The scope of a function's body.
func arguments(function *ast.Function, call *ast.Apply, around, from *scope) *scope {
	inner := &scope{bound: map[ast.Identifier]expression{}, around: around}
	for index, parameter := range function.Parameters {
		if index < len(call.Arguments.Positional) {
			inner.bound[parameter.Name] = expression{call.Arguments.Positional[index].Expr, from}
		} else if parameter.DefaultArg != nil {
			inner.bound[parameter.Name] = expression{parameter.DefaultArg, inner}
		}
	}
	for _, named := range call.Arguments.Named {
		inner.bound[named.Name] = expression{named.Arg, from}
	}
	return inner
}

// The file that an import found, if the evaluation came to that.
func (f *finder) imported(node *ast.Import) ast.Node {
	from, path := node.Loc().FileName, node.File.Value
	folder, _ := filepath.Split(from)
	for _, folder := range []string{folder, f.repository.library} {
		full := absolute(folder, path)
		if !f.repository.asked[full] {
			return nil
		}
		if f.repository.known[full].exists {
			root, _, err := f.vm.ImportAST(from, path)
			if err != nil {
				return nil
			}
			return root
		}
	}
	return nil
}

func (s *scope) with(binds ast.LocalBinds) *scope {
	inner := &scope{bound: map[ast.Identifier]expression{}, around: s}
	for _, bind := range binds {
		inner.bound[bind.Variable] = expression{bind.Body, inner}
	}
	return inner
}

func (s *scope) find(name ast.Identifier) (expression, bool) {
	for ; s != nil; s = s.around {
		if bound, ok := s.bound[name]; ok {
			return bound, true
		}
	}
	return expression{}, false
}

func (o object) inner() *scope {
	return o.scope.with(o.node.Locals)
}

// The field of this name, if there is one; or that the text does not tell.
func (o object) field(key string) (found *ast.DesugaredObjectField, isClear bool) {
	if o.node == nil || o.unclear[key] {
		return nil, false
	}
	isClear = true
	for index := range o.node.Fields {
		field := &o.node.Fields[index]
		name, isLiteral := field.Name.(*ast.LiteralString)
		if isLiteral && name.Value == key {
			return field, true
		}
		isClear = isClear && isLiteral
	}
	return nil, isClear
}

// The objects of one branch of a condition, beside those of the other one.
func unclear(objects, others []object) []object {
	names := map[string]bool{}
	for _, other := range others {
		if other.node == nil {
			return []object{{}}
		}
		for name := range other.unclear {
			names[name] = true
		}
		for _, field := range other.node.Fields {
			if name, ok := field.Name.(*ast.LiteralString); ok {
				names[name.Value] = true
			}
		}
	}
	var beside []object
	for _, object := range objects {
		all := maps.Clone(names)
		maps.Copy(all, object.unclear)
		object.unclear = all
		beside = append(beside, object)
	}
	return beside
}
