package artifact

// Creator starts artifacts: a Space, or a job that writes into one.
type Creator interface {
	Create(kind, mediaType, name string) (*Writer, error)
}

// Put makes an artifact of b.
func Put(in Creator, kind, mediaType, name string, b []byte) (Ref, error) {
	w, err := in.Create(kind, mediaType, name)
	if err != nil {
		return Ref{}, err
	}
	defer w.Abort()
	if _, err := w.Write(b); err != nil {
		return Ref{}, err
	}
	return w.Commit()
}
