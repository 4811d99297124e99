package command

import (
	"github.com/urfave/cli/v2"

	"bitnet1/shared/run/bucket"
)

// BucketFlag attaches the data directory to a bucket. Launcher and stages have it; all other programs find the bucket
// in the directory.
func BucketFlag() cli.Flag {
	return &cli.StringFlag{Name: "bucket", EnvVars: []string{"BITNET1_BUCKET"},
		Usage: "`URL` of S3-compatible storage that the hosts of a run share, s3://BUCKET/PATH; the data directory, empty " +
			"at first, becomes this host's cache of it"}
}

// Attach does what BucketFlag says.
func Attach(c *cli.Context) error {
	if c.String("bucket") == "" {
		return nil
	}
	return bucket.Attach(c.String("data"), c.String("bucket"))
}
