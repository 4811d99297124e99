"""Scores a model with lm-evaluation-harness, whose tasks read local files.

usage: harness.py FOLDER PROGRAM ...

FOLDER/TASK.jsonl holds rows in the form of the dataset that the harness's task reads. The program is the model: it
answers each line of JSON on its standard input with one line. {"text": ...} asks for token ids, {"ids": [...],
"continuation": n} for the log-likelihood of the last n ids and whether they are greedy. The first line that it prints
says what it is. Prints the harness's results as JSON.
"""
import glob, json, os, subprocess, sys

folder, program = sys.argv[1], sys.argv[2:]
os.environ.update(HF_HOME=os.path.join(folder, "cache"), HF_DATASETS_OFFLINE="1", HF_HUB_OFFLINE="1")

import lm_eval  # noqa: E402
from lm_eval.api.model import TemplateLM  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402


class Program(TemplateLM):
    def __init__(self):
        super().__init__()
        self.process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about = json.loads(self.process.stdout.readline())

    def ask(self, **question):
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    @property
    def eot_token_id(self):
        return self.about["end_of_text"]

    def tok_encode(self, string, add_special_tokens=None, **kwargs):
        return self.ask(text=string)

    def _loglikelihood_tokens(self, requests, **kwargs):
        answers = []
        for _, context, continuation in requests:
            ids = (context + continuation)[-(self.about["context"] + 1):]  # as HFLM truncates
            answers.append(tuple(self.ask(ids=ids, continuation=len(continuation))))
        return answers

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        raise NotImplementedError

    def generate_until(self, requests, disable_tqdm=False):
        raise NotImplementedError


# Where the harness has the definition of each task.
PATHS = {
    "blimp": "blimp/adjunct_island.yaml", "lambada": "lambada/lambada_openai.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml", "arc_easy": "arc/arc_easy.yaml", "arc_challenge": "arc/arc_challenge.yaml",
    "openbookqa": "openbookqa/openbookqa.yaml", "piqa": "piqa/piqa.yaml", "boolq": "super_glue/boolq/default.yaml",
    "commonsense_qa": "commonsense_qa/default.yaml", "copa": "super_glue/copa/default.yaml",
    "winogrande": "winogrande/default.yaml", "wsc273": "wsc273/default.yaml",
}

definitions = os.path.join(folder, "definitions")
os.makedirs(definitions, exist_ok=True)
names = sorted(os.path.basename(path)[:-6] for path in glob.glob(os.path.join(folder, "*.jsonl")))
for name in names:
    task = name.split("-")[0]  # blimp-SET
    path = os.path.join(os.path.dirname(lm_eval.__file__), "tasks", PATHS[task])
    with open(os.path.join(definitions, name + ".yaml"), "w") as f:
        json.dump({"include": path, "task": "local_" + name, "tag": [], "dataset_path": "json", "dataset_name": None,
                   "dataset_kwargs": {"data_files": {"test": os.path.join(folder, name + ".jsonl")}},
                   "training_split": None, "validation_split": None, "test_split": "test"}, f)

model = Program()
results = lm_eval.simple_evaluate(
    model=model, tasks=["local_" + name for name in names], task_manager=TaskManager(include_path=definitions),
    bootstrap_iters=2, verbosity="ERROR")
print(json.dumps({name: results["results"]["local_" + name] for name in names}))
