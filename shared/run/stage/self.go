package stage

import "os"

// Self is the path of this program, for starting it again, also after another file has taken its place on the disk.
func Self() (string, error) {
	const running = "/proc/self/exe"
	if _, err := os.Stat(running); err == nil {
		return running, nil
	}
	return os.Executable()
}
