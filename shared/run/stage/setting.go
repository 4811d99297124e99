package stage

import (
	"fmt"
	"os"
	"strings"

	"bitnet1/shared/run/command"
)

// Setting is how the user of this process gives a stage's parameter: as a flag of the stage or, where a launcher has
// started the process, as the launcher's --set. It is for messages that say what to change.
func Setting(stage, key, value string) string {
	if os.Getenv(command.EnvLauncher) != "" {
		return fmt.Sprintf("--set %s.%s=%s", stage, key, value)
	}
	return fmt.Sprintf("--%s %s", strings.ReplaceAll(key, "_", "-"), value)
}
