package main

import (
	"encoding/json"
	"maps"
	"path/filepath"
	"slices"

	"github.com/google/go-jsonnet"
	"github.com/google/go-jsonnet/ast"
)

// The places of the keys in what was made, as far as the text tells them: jsonnet itself forgets them. A key that is made in
// a loop has none, nor has one of a condition's branches if another object may have set it as well.
type places map[string]*keyPlace

type keyPlace struct {
	// The file is left out if it is that of the key above.
	place
	// Of the keys below this one.
	Below places `json:"below,omitempty"`
}

// No search looks at more nodes than this, nor deeper than this.
const (
	mostNodes = 30_000
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
	// Whether it may have taken no part.
	maybe bool
}

// An object in the text, or something that may be one with any keys: then it has no node.
type object struct {
	node  *ast.DesugaredObject
	scope *scope
	// Whether it may have taken no part: it is in one branch of a condition.
	maybe bool
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
		of := f.objects(expression, keys, 0)
		if expression.maybe {
			of = maybe(of)
		}
		objects = append(objects, of...)
	}
	found := places{}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		field, bodies := f.field(key, objects)
		if field == nil {
			continue
		}
		loc := field.LocRange
		at := &keyPlace{place: place{Line: loc.Begin.Line, Column: loc.Begin.Column}}
		if loc.FileName != above {
			at.File = loc.FileName
		}
		at.Below = f.below(keys[key], bodies, loc.FileName, depth+1)
		found[key] = at
	}
	return found
}

// The field that sets a key, and all bodies that its value is made of, the last one first; none if the text does not tell.
func (f *finder) field(key string, objects []object) (first *ast.DesugaredObjectField, bodies []expression) {
	isSure, mayBe := true, false
	var from *scope
	for _, object := range objects {
		field, isClear := object.field(key)
		if object.node != nil {
			f.nodes += len(object.node.Fields)
		}
		if isClear && field == nil {
			continue
		}
		if !isClear || f.nodes > mostNodes {
			if !isSure {
				return nil, nil
			}
			break
		}
		if first == nil {
			// If nothing else has the key, it is from here.
			first, from, isSure = field, object.scope, !object.maybe
		} else if !isSure && field == first && object.scope == from {
			// Both branches have this object.
			continue
		} else if !isSure {
			return nil, nil
		} else {
			mayBe = mayBe || object.maybe
		}
		bodies = append(bodies, expression{field.Body, object.inner(), mayBe})
		if !field.PlusSuper && !object.maybe {
			return first, bodies
		}
	}
	return first, bodies
}

// The objects that an expression adds up, the last one first. What they made has these keys, if they are known.
func (f *finder) objects(e expression, made map[string]any, depth int) []object {
	unknown := []object{{}}
	f.nodes++
	if f.nodes > mostNodes || depth > deepest {
		return unknown
	}
	depth++
	at := func(node ast.Node, scope *scope) []object {
		return f.objects(expression{node: node, scope: scope}, made, depth)
	}
	switch node := e.node.(type) {
	case *ast.DesugaredObject:
		return []object{{node: node, scope: e.scope}}
	case *ast.Local:
		return at(node.Body, e.scope.with(node.Binds))
	case *ast.Var:
		if bound, ok := e.scope.find(node.Id); ok {
			return at(bound.node, bound.scope)
		}
	case *ast.Binary:
		if node.Op == ast.BopPlus {
			return append(at(node.Right, e.scope), at(node.Left, e.scope)...)
		}
	case *ast.Conditional:
		return either(node, at(node.BranchTrue, e.scope), at(node.BranchFalse, e.scope), made)
	case *ast.Apply:
		if body, ok := f.called(node, e.scope, depth); ok {
			return at(body.node, body.scope)
		}
	case *ast.Index:
		if key, ok := node.Index.(*ast.LiteralString); ok {
			target := f.objects(expression{node: node.Target, scope: e.scope}, nil, depth)
			field, bodies := f.field(key.Value, target)
			if field != nil && len(bodies) == 1 && !field.PlusSuper {
				return at(bodies[0].node, bodies[0].scope)
			}
		}
	case *ast.Import:
		if root := f.imported(node); root != nil {
			return at(root, nil)
		}
	}
	return unknown
}

// The objects of the branch that was taken, if that can be told, or of both. An assertion is such a condition, too.
func either(node *ast.Conditional, yes, no []object, made map[string]any) []object {
	if _, isError := node.BranchFalse.(*ast.Error); isError || lacks(made, no) {
		return yes
	}
	if _, isError := node.BranchTrue.(*ast.Error); isError || lacks(made, yes) {
		return no
	}
	return maybe(append(yes, no...))
}

// Whether something was made without one of these objects: it has not all of their keys.
func lacks(made map[string]any, objects []object) bool {
	for _, object := range objects {
		if made == nil || object.node == nil || object.maybe {
			continue
		}
		for _, field := range object.node.Fields {
			name, isLiteral := field.Name.(*ast.LiteralString)
			if !isLiteral || field.Hide == ast.ObjectFieldHidden {
				continue
			}
			if _, isThere := made[name.Value]; !isThere {
				return true
			}
		}
	}
	return false
}

// The same objects, each of which may have taken no part.
func maybe(objects []object) []object {
	var all []object
	for _, object := range objects {
		object.maybe = true
		all = append(all, object)
	}
	return all
}

// What a call returns, if the text tells which function that is.
func (f *finder) called(call *ast.Apply, from *scope, depth int) (expression, bool) {
	target := expression{node: call.Target, scope: from}
	for range deepest {
		switch node := target.node.(type) {
		case *ast.Var:
			bound, ok := target.scope.find(node.Id)
			if !ok {
				return expression{}, false
			}
			target = bound
		case *ast.Local:
			target = expression{node: node.Body, scope: target.scope.with(node.Binds)}
		case *ast.Function:
			return expression{node: node.Body, scope: arguments(node, call, target.scope, from)}, true
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
			inner.bound[parameter.Name] = expression{node: call.Arguments.Positional[index].Expr, scope: from}
		} else if parameter.DefaultArg != nil {
			inner.bound[parameter.Name] = expression{node: parameter.DefaultArg, scope: inner}
		}
	}
	for _, named := range call.Arguments.Named {
		inner.bound[named.Name] = expression{node: named.Arg, scope: from}
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
		inner.bound[bind.Variable] = expression{node: bind.Body, scope: inner}
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
	if o.node == nil {
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
