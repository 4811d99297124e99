package source

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"bitnet1/shared/digest"
)

// Named is a location that a user named.
type Named struct {
	Location   string // a path, a pattern or a URL
	Parameters string // how the files are read; empty: as the run says
}

// Found is a file that a run reads: where it is, and what identifies it.
type Found struct {
	Name     string // in provenance; it does not depend on where the files lie
	Location string // a path or a URL, see Path
	Digest   string // of a local file: of its bytes; of a remote file: Object.Digest
	Size     int64  // bytes
	Version  string // of a remote file: Object.Version

	Parameters string // Named.Parameters
}

// Object is a remote file in the form that Fetch takes.
func (f Found) Object() Object {
	return Object{Name: f.Name, URL: f.Location, Size: f.Size, Version: f.Version}
}

// FindAll finds all files that a user named: first the local files by name, then the remote files by name. A file that
// is named more than once is listed once, with the parameters of any of its names.
func (c *Client) FindAll(ctx context.Context, named []Named) ([]Found, error) {
	var local []Named
	var remote []Found
	for _, n := range named {
		if !Remote(n.Location) {
			local = append(local, n)
			continue
		}
		objects, err := c.Find(ctx, n.Location)
		if err != nil {
			return nil, err
		}
		for _, o := range objects {
			remote = append(remote, Found{Name: o.Name, Location: o.URL, Digest: o.Digest(), Size: o.Size,
				Version: o.Version, Parameters: n.Parameters})
		}
	}
	all, err := digestLocal(ctx, local, c.LeaveOut)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(remote, func(a, b Found) int { return cmp.Compare(a.Name, b.Name) })
	return once(append(all, remote...))
}

// once removes repeated names.
func once(all []Found) (kept []Found, err error) {
	place := map[string]int{} // index in kept, by name
	for _, f := range all {
		i, again := place[f.Name]
		if !again {
			place[f.Name] = len(kept)
			kept = append(kept, f)
			continue
		}
		same := f
		same.Parameters = kept[i].Parameters
		if same != kept[i] {
			return nil, fmt.Errorf("sources %s and %s would both be called %s: give them in runs of their own, or "+
				"copy one to another name", readable(kept[i].Location), readable(f.Location), f.Name)
		}
		if kept[i].Parameters, err = merge(f.Name, kept[i].Parameters, f.Parameters); err != nil {
			return nil, err
		}
	}
	return kept, nil
}

// merge returns the parameters of a file that is named twice: those that are not empty. Two different ones are an
// error.
func merge(name, a, b string) (string, error) {
	if a != "" && b != "" && a != b {
		return "", fmt.Errorf("source %s is named twice, with the parameters %s and %s: name it once", readable(name),
			a, b)
	}
	return cmp.Or(a, b), nil
}

func digestLocal(ctx context.Context, named []Named, leaveOut func(folder string) bool) ([]Found, error) {
	files, err := Local(named, leaveOut)
	if err != nil {
		return nil, err
	}
	all := make([]Found, len(files))
	for i, name := range names(files) {
		path := files[i].Location
		all[i] = Found{Name: name, Location: location(path), Parameters: files[i].Parameters}
		if all[i].Digest, all[i].Size, err = digestFile(ctx, path); err != nil {
			return nil, fmt.Errorf("source %s: %w", readable(path), err)
		}
	}
	return all, nil
}

// Check returns the path of a local file. It is an error if the file is not the one that was found.
func (f Found) Check(ctx context.Context) (string, error) {
	path, _ := Path(f.Location)
	have, _, err := digestFile(ctx, path)
	if err != nil {
		return "", fmt.Errorf("source %s: %w", f.Name, err)
	}
	if have != f.Digest {
		return "", fmt.Errorf("source %s has changed since the run began (its digest is %s, not %s): start a new run "+
			"with it", f.Name, digest.Short(have), digest.Short(f.Digest))
	}
	return path, nil
}
