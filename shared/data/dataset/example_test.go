package dataset_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/data/datasettest"
	"bitnet1/shared/data/seal"
	"bitnet1/shared/data/tokenizer"
)

// Two texts become a token batch, the batch becomes a dataset, and the dataset's sequences are read as a trainer reads
// them: in the order of an epoch, with a target for each token. A token is a byte here, 256 the end of a text, and -1
// no target.
func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "proverbs.tokens.arrow")
	if err := writeProverbs(path); err != nil {
		panic(err)
	}

	options := seal.DefaultOptions()
	options.SequenceLength, options.ValidationShare = 12, 0.5
	manifest, err := seal.Dataset(context.Background(), options, []string{path}, datasettest.Into(dir))
	if err != nil {
		panic(err)
	}
	fmt.Printf("%d documents train, %d validate\n", manifest.Splits.Train.Documents,
		manifest.Splits.Validation.Documents)

	d, err := dataset.Open(manifest, datasettest.From(dir))
	if err != nil {
		panic(err)
	}
	defer d.Close()
	order := dataset.Order(d.Train.Len(), 1, 0)
	for i := range order.Len() {
		tokens, targets, err := d.Train.AppendTargets(order.At(i), nil, nil)
		if err != nil {
			panic(err)
		}
		fmt.Println(tokens[:4], "->", targets[:4])
	}
	// Output:
	// 1 documents train, 1 validate
	// [108 115 46 256] -> [115 46 256 -1]
	// [256 65 32 119] -> [65 32 119 97]
	// [111 116 32 110] -> [116 32 110 101]
}

// writeProverbs writes a token batch of two texts, a token a byte.
func writeProverbs(path string) error {
	bytes, err := tokenizer.New("bytes")
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w, err := dataset.NewBatchWriter(f, dataset.TokenizerInfo{Name: bytes.Name(), Vocab: bytes.Vocab(),
		EndOfText: bytes.EndOfText()})
	if err != nil {
		return err
	}
	for i, text := range []string{"Still waters run deep.", "A watched pot never boils."} {
		d := dataset.BatchDocument{ID: fmt.Sprint("proverb ", i), Source: "proverbs", Row: int64(i),
			Bytes: int64(len(text))}
		if err := w.Append(d, bytes.Encode(nil, []byte(text))); err != nil {
			return err
		}
	}
	return w.Close()
}
