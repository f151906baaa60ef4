"""What a doctor might find."""

from __future__ import annotations

from mmkd.doctor import Costs, Examination, TeacherFinding, TermFinding

__all__ = ["examination"]


def examination(share: float = 0.98) -> Examination:
    """Of one term, by default one that drowns the task."""
    neck = TermFinding(
        name="neck",
        student="neck.0",
        teacher="neck.0",
        student_shapes=((4, 8, 16, 16),),
        teacher_shapes=((4, 16, 16, 16),),
        size=(128, 128),
        samples=1024,
        distance=0.1234,
        weight=2.0,
        share=share,
        cosine=-0.051,
        is_balanced=False,
        active=1.0,
    )
    teacher = TeacherFinding(
        "teacher",
        "FasterRCNN from t.pth",
        parameters=2000,
        loss=0.5,
        accuracy=45.6,
        images=16,
    )
    return Examination(
        terms=(neck,),
        teachers=(teacher,),
        student_parameters=1000,
        student_loss=3.2,
        plain=Costs(0.1, None),
        distilled=Costs(0.13, 2 * 2**30),
        teacher_share=0.2,
        iterations=12000,
    )
